//! Paths of routes, as routers write them, and their shapes.
//!
//! A misspelt path in a table would lock nothing, and say nothing: by its shape a request is recognised that
//! such an entry was meant for, and refused. Routes that [`LockedRouter`](super::LockedRouter) registers need
//! no shapes.

use std::fmt;

use lock_core::LockError;
use percent_encoding::percent_decode_str;

/// The full path of a route: `/orders/{id}/process`, `/files/{*path}`.
#[derive(Clone, Debug)]
pub(super) struct RoutePath {
    text: Box<str>,
    segments: Box<[Segment]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Param(Box<str>),
    /// All the rest, one segment or more.
    Rest(Box<str>),
}

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with(':') || text.starts_with('*') {
            return Err(format!(
                "`{text}` is no parameter any more; write `{{name}}` or `{{*name}}`"
            ));
        }
        let escaped = text.replace("{{", "").replace("}}", "");
        if !escaped.contains(['{', '}']) {
            return Ok(Self::Literal(
                text.replace("{{", "{").replace("}}", "}").into(),
            ));
        }
        let name = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'));
        let rest = name.and_then(|name| name.strip_prefix('*'));
        match (name, rest) {
            (Some(name), _) if name.contains(['{', '}']) => {
                Err(format!("`{text}` is no parameter"))
            }
            (Some(""), _) | (_, Some("")) => Err(format!("the parameter `{text}` has no name")),
            (_, Some(rest)) => Ok(Self::Rest(rest.into())),
            (Some(name), None) => Ok(Self::Param(name.into())),
            (None, None) => Err(format!("`{text}` is neither literal nor one parameter")),
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Param(name) | Self::Rest(name) => Some(name),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Param(_), Self::Param(_)) | (Self::Rest(_), Self::Rest(_)) => true,
            _ => self == other,
        }
    }
}

impl RoutePath {
    pub(super) fn parse(text: &str) -> Result<Self, LockError> {
        let wrong = |what: String| {
            LockError::misconfigured(format!("`{text}` is not the path of a route: {what}"))
        };
        let Some(path) = text.strip_prefix('/') else {
            return Err(wrong("it must start with `/`".to_owned()));
        };
        let segments = path.split('/').map(Segment::parse);
        let segments = segments.collect::<Result<Box<[_]>, _>>().map_err(wrong)?;
        let last = segments.len() - 1;
        for (n, segment) in segments.iter().enumerate() {
            let Some(name) = segment.param() else {
                continue;
            };
            if n != last && matches!(segment, Segment::Rest(_)) {
                return Err(wrong(format!("`{{*{name}}}` must be its last part")));
            }
            if segments[..n]
                .iter()
                .any(|earlier| earlier.param() == Some(name))
            {
                return Err(wrong(format!("it has two parameters `{name}`")));
            }
        }
        let text = text.into();
        Ok(Self { text, segments })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn params(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::param)
    }

    pub(super) fn has_param(&self, name: &str) -> bool {
        self.params().any(|param| param == name)
    }

    /// Whether the two differ in the names of parameters at most.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.segments.len() == other.segments.len()
            && self
                .segments
                .iter()
                .zip(&other.segments)
                .all(|(one, other)| one.is_like(other))
    }

    /// Whether `path`, of a request, ends in the shape of this route. Where the route that matched is
    /// known and is literal where this one has a parameter, it is another one.
    pub(super) fn ends(&self, path: &str, matched: Option<&str>) -> bool {
        let shape = || self.segments.iter().filter(|segment| !segment.is_empty());
        let found: Vec<_> = segments(path).collect();
        let wanted = shape().count();
        let is_open = matches!(self.segments.last(), Some(Segment::Rest(_)));
        let starts = match found.len().checked_sub(wanted) {
            // The root is the end of nothing but itself.
            _ if wanted == 0 => 0..usize::from(found.is_empty()),
            None => return false,
            Some(start) if is_open => 0..start + 1,
            Some(start) => start..start + 1,
        };
        starts.into_iter().any(|start| {
            shape().zip(start..).all(|(segment, n)| match segment {
                Segment::Literal(text) => is_text(found[n], text),
                Segment::Param(_) | Segment::Rest(_) => !is_literal(matched, &found, n),
            })
        })
    }
}

impl Segment {
    /// What a trailing slash leaves.
    fn is_empty(&self) -> bool {
        matches!(self, Self::Literal(text) if text.is_empty())
    }
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// Whether a part of a request's path is this text, also where it needlessly escapes some of it.
fn is_text(segment: &str, text: &str) -> bool {
    segment == text || percent_decode_str(segment).eq(text.bytes())
}

/// Whether the route that matched a path is literal in its part `n`.
fn is_literal(matched: Option<&str>, found: &[&str], n: usize) -> bool {
    let Some(matched) = matched else {
        return false;
    };
    // Past a `{*rest}` nothing is literal, and a path can have been rewritten since it was matched.
    let mut known = segments(matched).take_while(|segment| !segment.starts_with("{*"));
    let is_param = |segment: &str| segment.starts_with('{') && !segment.starts_with("{{");
    known.nth(n).is_some_and(|segment| {
        let text = segment.replace("{{", "{").replace("}}", "}");
        !is_param(segment) && is_text(found[n], &text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RoutePath {
        RoutePath::parse(text).unwrap()
    }

    #[test]
    fn paths_are_those_of_routers() {
        let parsed = path("/files/{owner}/{{literal}}/{*path}");
        assert_eq!(parsed.params().collect::<Vec<_>>(), ["owner", "path"]);
        assert!(parsed.has_param("path") && !parsed.has_param("literal"));
        for (text, wrong) in [
            ("orders/{id}", "start with"),
            ("", "start with"),
            ("/orders/:id", "`{name}`"),
            ("/files/*path", "`{*name}`"),
            ("/orders/{}", "no name"),
            ("/orders/{*}", "no name"),
            ("/orders/{id}.json", "neither"),
            ("/orders/{id", "neither"),
            ("/orders/{a}{b}", "no parameter"),
            ("/{*rest}/orders", "last"),
            ("/{id}/orders/{id}", "two parameters `id`"),
        ] {
            let error = RoutePath::parse(text).unwrap_err().to_string();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }

    #[test]
    fn likeness_is_up_to_the_names_of_parameters() {
        assert!(path("/orders/{id}").is_like(&path("/orders/{order}")));
        assert!(path("/{*a}").is_like(&path("/{*b}")));
        for (one, other) in [
            ("/orders/{id}", "/orders/id"),
            ("/orders/{id}", "/orders/{*id}"),
            ("/orders/{id}", "/orders/{id}/process"),
            ("/orders", "/orders/"),
        ] {
            assert!(!path(one).is_like(&path(other)), "{one} {other}");
        }
    }

    #[test]
    fn a_request_ends_in_the_shape_of_a_route() {
        let route = path("/orders/{id}/process");
        for request in [
            "/orders/7/process",
            "/api/orders/7/process",
            "/v1/api/orders/a%2Fb/process",
            "/api/orders/7/proc%65ss",
            "/api//orders/7/process/",
        ] {
            assert!(route.ends(request, None), "{request}");
        }
        for request in [
            "/",
            "/orders/process",
            "/orders/7/process/now",
            "/orders/7",
            "/7/process",
        ] {
            assert!(!route.ends(request, None), "{request}");
        }
        assert!(path("/").ends("/", None));
        assert!(!path("/").ends("/orders", None));
        let open = path("/files/{*path}");
        assert!(open.ends("/api/files/a/b/c", None) && open.ends("/files/a", None));
        assert!(!open.ends("/files", None) && !open.ends("/file/a", None));
    }

    #[test]
    fn a_route_that_is_literal_there_is_another_one() {
        let route = path("/orders/{id}/process");
        for (request, matched, is_meant) in [
            ("/api/orders/7/process", "/api/orders/{id}/process", true),
            ("/orders/7/process", "/orders/{order}/process", true),
            ("/orders/7/process", "/{*all}", true),
            ("/orders/7/process", "/{a}/{b}/{c}", true),
            ("/orders/bulk/process", "/orders/bulk/process", false),
            ("/orders/bulk/process", "/{a}/bulk/{c}", false),
            ("/orders/bulk/process", "/orders/bulk/{*rest}", false),
            ("/orders/{id}/process", "/orders/{{id}}/process", false),
            // The path was rewritten since: what is literal in it is not known.
            ("/orders/7/process", "/api/v1/x", true),
        ] {
            assert_eq!(
                route.ends(request, Some(matched)),
                is_meant,
                "{request} {matched}"
            );
        }
    }
}
