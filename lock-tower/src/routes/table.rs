//! Which entry a request is for.

use std::collections::HashMap;

use http::request::Parts;
use http::{Method, Uri};
use lock_core::LockError;

use super::params::Params;
use super::path::RoutePath;
use crate::name::{Naming, Param, Route};
use crate::rule::{Choice, Rule, Rules, covers};

/// The entries of a [`RouteLocks`](super::RouteLocks), by path, and where their parameters come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    entries: HashMap<Box<str>, Routes>,
    pub(super) params: Params,
}

/// The entries of one path.
#[derive(Clone, Debug)]
struct Routes {
    path: RoutePath,
    by_method: Vec<(Method, Option<Rule>)>,
    /// For all other methods.
    others: Option<Rule>,
}

impl Table {
    /// The path of an entry, if there is one.
    pub(super) fn path(&self) -> Option<&RoutePath> {
        self.entries.values().map(|routes| &routes.path).next()
    }

    /// Adds a source of a parameter.
    pub(super) fn give(&mut self, param: Param) {
        let entries = self.entries.values_mut().flat_map(Routes::namings);
        self.params.give(param, entries);
    }

    /// Adds an entry; without a rule one that is not locked.
    pub(super) fn add(
        &mut self,
        method: Method,
        path: RoutePath,
        rule: Option<Rule>,
    ) -> Result<(), LockError> {
        self.check_spelling(&path)?;
        let routes = self.routes(path);
        let mut known = routes.by_method.iter();
        if known.any(|(known, _)| overlap(known, &method)) {
            return Err(LockError::misconfigured(format!(
                "`{method} {}` has an entry already; remove one (an entry for GET covers HEAD)",
                routes.path
            )));
        }
        routes.by_method.push((method, rule));
        Ok(())
    }

    /// Adds an entry for all methods that have none of their own.
    pub(super) fn add_any(&mut self, path: RoutePath, rule: Rule) -> Result<(), LockError> {
        self.check_spelling(&path)?;
        let routes = self.routes(path);
        if routes.others.is_some() {
            return Err(LockError::misconfigured(format!(
                "any method of `{}` has an entry already; remove one",
                routes.path
            )));
        }
        routes.others = Some(rule);
        Ok(())
    }

    /// That a route is spelt as it was before. A router has one pattern for a shape: of two spellings
    /// one matches no request, and what it was to lock would pass.
    fn check_spelling(&self, path: &RoutePath) -> Result<(), LockError> {
        let is_twin = |known: &&RoutePath| known.is_like(path) && known.as_str() != path.as_str();
        let mut known = self.entries.values().map(|routes| &routes.path);
        match known.find(is_twin) {
            Some(twin) => Err(LockError::misconfigured(format!(
                "`{path}` is the route `{twin}` of another entry with other names of its parameters; \
                 write both as the router does"
            ))),
            None => Ok(()),
        }
    }

    fn routes(&mut self, path: RoutePath) -> &mut Routes {
        let text = path.as_str().into();
        self.entries.entry(text).or_insert_with(|| Routes {
            path,
            by_method: Vec::new(),
            others: None,
        })
    }
}

impl Rules for Table {
    fn choose(&self, parts: &Parts) -> Choice<'_> {
        let route = Route::of(parts);
        let pattern = route.pattern();
        let matched = pattern.and_then(|pattern| self.entries.get(pattern));
        // An entry for another method says nothing about this one.
        if let Some(rule) = matched.and_then(|routes| routes.rule(&parts.method)) {
            let lock = |rule| {
                self.params
                    .mistake()
                    .map_or(Choice::Lock(rule), Choice::Mistake)
            };
            return rule.map_or(Choice::Pass, lock);
        }
        match self
            .entries
            .values()
            .find(|routes| routes.is_meant(pattern, parts))
        {
            Some(routes) => Choice::Mistake(routes.mistake(pattern, &parts.method)),
            None => Choice::Pass,
        }
    }
}

impl Routes {
    fn namings(&mut self) -> impl Iterator<Item = &mut Naming> {
        let rules = self
            .by_method
            .iter_mut()
            .filter_map(|(_, rule)| rule.as_mut());
        rules.chain(&mut self.others).map(|rule| &mut rule.naming)
    }

    fn rule(&self, method: &Method) -> Option<Option<&Rule>> {
        let entry = self
            .by_method
            .iter()
            .find(|(known, _)| covers(known, method));
        let entry = entry.map(|(_, rule)| rule.as_ref());
        entry.or_else(|| self.others.as_ref().map(Some))
    }

    /// Whether a request that no entry matches has the shape of a locked one of these.
    fn is_meant(&self, pattern: Option<&str>, parts: &Parts) -> bool {
        let ends = |uri: &Uri| self.path.ends(uri.path(), pattern);
        // A pattern is one of the whole path. Without one, any path will do to be careful.
        let has_shape = ends(Route::uri(parts)) || (pattern.is_none() && ends(&parts.uri));
        has_shape && matches!(self.rule(&parts.method), Some(Some(_)))
    }

    fn mistake(&self, pattern: Option<&str>, method: &Method) -> LockError {
        let path = &self.path;
        LockError::misconfigured(match pattern {
            Some(pattern) => format!(
                "a request to the route `{method} {pattern}` has the shape of the entry `{method} \
                 {path}` of the `RouteLocks`, and no entry matches it; write the full path of the \
                 route into the entry, or declare the route with `.unlocked(..)`"
            ),
            None => format!(
                "a request has the shape of the entry `{method} {path}` of the `RouteLocks`, and no \
                 route has matched where they are (around a whole router, a fallback or a nested \
                 service); put them on routes, with `route_layer`"
            ),
        })
    }
}

fn overlap(one: &Method, other: &Method) -> bool {
    covers(one, other) || covers(other, one)
}
