//! What a layer knows: how requests are locked, and what is the same for all of its routes.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use lock_core::{LockError, LockPolicy, LockProvider};

use crate::mistake::Mistakes;
use crate::name::{Naming, Route};
use crate::rejection::Asked;
use crate::{HoldUntil, LockRejection};

type OnRejection = dyn Fn(LockRejection) -> Response<Bytes> + Send + Sync;

/// What is locked, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) naming: Naming,
    pub(crate) policy: LockPolicy,
}

/// What is the same for all routes of a layer.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) locks: LockProvider,
    pub(crate) hold_until: HoldUntil,
    pub(crate) drop_on_disconnect: bool,
    pub(crate) on_rejection: Option<Arc<OnRejection>>,
    mistakes: Arc<Mistakes>,
}

impl Settings {
    pub(crate) fn new(locks: LockProvider) -> Self {
        Self {
            locks,
            hold_until: HoldUntil::default(),
            drop_on_disconnect: false,
            on_rejection: None,
            mistakes: Arc::default(),
        }
    }

    /// Whether a handler runs to its end when its client has left.
    pub(crate) fn outlives_client(&self, method: &Method) -> bool {
        !self.drop_on_disconnect && !matches!(*method, Method::GET | Method::HEAD)
    }

    /// The answer to a request that did not have its lock to the end.
    pub(crate) fn reject(&self, error: LockError, asked: Asked) -> Response<Bytes> {
        let lock = asked.template.as_ref().map(lock_core::LockTemplate::as_str);
        if error.is_misconfigured() {
            self.mistakes.log(&error);
        } else {
            tracing::debug!(lock, %error, "a request was refused");
        }
        let rejection = LockRejection::new(error, asked);
        match &self.on_rejection {
            Some(answer) => answer(rejection),
            None => rejection.to_response(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("locks", &self.locks)
            .field("hold_until", &self.hold_until)
            .field("drop_on_disconnect", &self.drop_on_disconnect)
            .field("on_rejection", &self.on_rejection.is_some())
            .finish()
    }
}

/// The rules that a service looks into.
#[derive(Clone, Debug)]
pub(crate) enum Rules {
    One(Arc<Rule>),
    #[cfg(feature = "axum")]
    Table(Arc<crate::routes::Table>),
}

/// What the rules say about a request.
#[derive(Debug)]
pub(crate) enum Choice<'a> {
    Lock(&'a Rule),
    /// Not locked, on purpose.
    #[cfg_attr(
        not(feature = "axum"),
        expect(dead_code, reason = "only tables let pass")
    )]
    Pass,
    #[cfg_attr(
        not(feature = "axum"),
        expect(dead_code, reason = "only tables can miss")
    )]
    Mistake(LockError),
}

impl Rules {
    #[cfg_attr(
        not(feature = "axum"),
        expect(unused_variables, reason = "only tables look at the request")
    )]
    pub(crate) fn choose(&self, parts: &Parts) -> Choice<'_> {
        match self {
            Self::One(rule) => Choice::Lock(rule),
            #[cfg(feature = "axum")]
            Self::Table(table) => table.choose(parts),
        }
    }
}

impl Asked {
    pub(crate) fn new(parts: &Parts, rule: Option<&Rule>) -> Self {
        Self {
            method: parts.method.clone(),
            uri: Route::uri(parts).clone(),
            route: Route::of(parts),
            template: rule.map(|rule| rule.naming.template().clone()),
            wait: rule.map(|rule| rule.policy.get_wait()).unwrap_or_default(),
        }
    }
}
