//! Without axum nothing is known of a route.

use http::Uri;
use http::request::Parts;
use lock_core::{LockError, LockTemplate};

/// The pattern of the route, which is not known here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Route;

impl Route {
    pub(crate) fn of(_: &Parts) -> Self {
        Self
    }

    pub(crate) fn pattern(&self) -> Option<&str> {
        None
    }

    pub(crate) fn uri(parts: &Parts) -> &Uri {
        &parts.uri
    }
}

/// The parameters of the route: none.
pub(crate) struct RouteParams;

impl RouteParams {
    pub(crate) fn of(_: &mut Parts) -> Result<Self, LockError> {
        Ok(Self)
    }

    pub(crate) fn get(&self, name: &str, template: &LockTemplate) -> Result<&str, LockError> {
        Err(LockError::misconfigured(format!(
            "the template `{template}` names `{name}`, and without the feature `axum` there are no \
             route parameters; give the value with `.param(..)` or the name with `.key(..)`",
        )))
    }
}
