//! What axum knows of a route: its pattern, and the values of its parameters.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::str;
use std::task::{Context, Poll, Waker};

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, MatchedPath, OriginalUri, Path};
use http::Uri;
use http::request::Parts;
use lock_core::{LockError, LockTemplate};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use smallvec::SmallVec;

/// The pattern of the route: the path without filled parameters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Route(Option<MatchedPath>);

impl Route {
    pub(crate) fn of(parts: &Parts) -> Self {
        Self(parts.extensions.get().cloned())
    }

    pub(crate) fn pattern(&self) -> Option<&str> {
        self.0.as_ref().map(MatchedPath::as_str)
    }

    /// The URI as the client sent it: a nested router sees less.
    pub(crate) fn uri(parts: &Parts) -> &Uri {
        (parts.extensions.get()).map_or(&parts.uri, |OriginalUri(uri)| uri)
    }
}

/// The parameters of the route, percent-decoded.
pub(crate) struct RouteParams {
    values: Values,
    route: Route,
}

impl RouteParams {
    pub(crate) fn of(parts: &mut Parts) -> Result<Self, LockError> {
        let route = Route::of(parts);
        if route.pattern().is_none() {
            return Err(unmatched());
        }
        let values = pin!(Path::<Values>::from_request_parts(parts, &()));
        match values.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Path(values))) => Ok(Self { values, route }),
            Poll::Ready(Err(PathRejection::FailedToDeserializePathParams(error)))
                if matches!(error.kind(), ErrorKind::InvalidUtf8InPathParam { .. }) =>
            {
                Err(LockError::invalid_name(
                    "a parameter of the route is not UTF-8",
                ))
            }
            // It only looks into the extensions; were it to wait, no request would be let in.
            Poll::Ready(Err(_)) | Poll::Pending => Err(unmatched()),
        }
    }

    pub(crate) fn get(&self, name: &str, template: &LockTemplate) -> Result<&str, LockError> {
        let mut values = self.values.iter().filter(|(known, _)| *known == name);
        let route = self.route.pattern().unwrap_or_default();
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Ok(value),
            (None, _) => Err(LockError::misconfigured(format!(
                "the template `{template}` names `{name}`, and the route `{route}` has {}; name the \
                 parameter as the route does, or give it with `.param(..)`",
                listed(self.values.iter().map(|(known, _)| known)),
            ))),
            (Some(_), Some(_)) => Err(LockError::misconfigured(format!(
                "the route `{route}` has more than one parameter `{name}`, which the template \
                 `{template}` names; rename one",
            ))),
        }
    }
}

fn unmatched() -> LockError {
    LockError::misconfigured(
        "a layer whose template names route parameters is where no route has matched (around a \
         whole router, a fallback or a nested service); put it on routes, with `route_layer`, or \
         give it the values with `.param(..)` or the name with `.key(..)`",
    )
}

/// The parameters of a route, for a message.
pub(crate) fn listed<'a>(params: impl Iterator<Item = &'a str>) -> String {
    let params: Vec<_> = params.map(|param| format!("`{param}`")).collect();
    match &params[..] {
        [] => "no route parameters".to_owned(),
        params => format!("the parameters {}", params.join(", ")),
    }
}

/// Text that costs no allocation as long as it is short.
type Text = SmallVec<[u8; 64]>;

/// Names and values of all parameters. What `RawPathParams` gives, without its allocation.
struct Values(SmallVec<[(Text, Text); 3]>);

impl Values {
    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        // They were text; an empty value makes no name.
        fn text(bytes: &[u8]) -> &str {
            str::from_utf8(bytes).unwrap_or_default()
        }
        self.0.iter().map(|(name, value)| (text(name), text(value)))
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the parameters of a route")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
                let mut values = SmallVec::new();
                while let Some((Copied(name), Copied(value))) = map.next_entry()? {
                    values.push((name, value));
                }
                Ok(Values(values))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

struct Copied(Text);

impl<'de> Deserialize<'de> for Copied {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Copy;

        impl Visitor<'_> for Copy {
            type Value = Copied;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Copied, E> {
                Ok(Copied(Text::from_slice(text.as_bytes())))
            }
        }

        deserializer.deserialize_str(Copy)
    }
}
