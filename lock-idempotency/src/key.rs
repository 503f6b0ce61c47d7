//! The key of a request, as its handler sees it.

use std::fmt;
use std::sync::Arc;

use http::Uri;
use http::request::Parts;
use lock_core::answer::Problem;
use lock_tower::HeldLock;

use crate::settings::Settings;
use crate::{Fingerprint, RecordKey};

/// The idempotency key that a request runs under: an extractor in axum, an extension of the request
/// everywhere.
///
/// Without a layer around the handler, and for a request without a key, there is none: `IdempotencyKey` is
/// refused with 500, and `Option<IdempotencyKey>` is `None`.
///
#[cfg_attr(feature = "axum", doc = "```")]
#[cfg_attr(not(feature = "axum"), doc = "```ignore")]
/// use lock_idempotency::IdempotencyKey;
///
/// /// Hands the key on to a service that takes keys as well.
/// async fn charge(key: IdempotencyKey) -> String {
///     format!("charged, with the key {}", key.record())
/// }
/// # let _ = axum::Router::<()>::new().route("/", axum::routing::post(charge));
/// ```
#[derive(Clone)]
pub struct IdempotencyKey {
    pub(crate) asking: Arc<Asking>,
    pub(crate) held: HeldLock,
}

/// A request with a key, and what its record is called.
pub(crate) struct Asking {
    pub(crate) key: String,
    pub(crate) record: RecordKey,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) route: Route,
    /// The lock of a layer outside, which the handler is to see as its own.
    pub(crate) held_outside: Option<HeldLock>,
    pub(crate) settings: Arc<Settings>,
}

impl IdempotencyKey {
    /// The key as the client sent it, without quotes. Another caller can have sent the same.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.asking.key
    }

    /// The name of the record: a hash of scope, route and key, the same at each retry, and different for
    /// each caller. So it is the key to give to a service that this one calls.
    #[must_use]
    pub fn record(&self) -> &RecordKey {
        &self.asking.record
    }

    /// The hash of the request.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.asking.fingerprint
    }

    /// The lock of the key. The extractor `HeldLock` gives the one of a `LockLayer`, never this: its token says
    /// nothing of the resource that the handler writes.
    #[must_use]
    pub fn held(&self) -> &HeldLock {
        &self.held
    }
}

/// Without the key: who knows it and the caller can read the answer.
impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyKey")
            .field("record", self.record())
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

/// The pattern of the route, where one is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Route {
    #[cfg(feature = "axum")]
    matched: Option<axum::extract::MatchedPath>,
}

impl Route {
    #[cfg_attr(
        not(feature = "axum"),
        expect(unused_variables, reason = "axum knows routes")
    )]
    pub(crate) fn of(parts: &Parts) -> Self {
        Self {
            #[cfg(feature = "axum")]
            matched: parts.extensions.get().cloned(),
        }
    }

    pub(crate) fn pattern(&self) -> Option<&str> {
        #[cfg(feature = "axum")]
        return self
            .matched
            .as_ref()
            .map(axum::extract::MatchedPath::as_str);
        #[cfg(not(feature = "axum"))]
        None
    }

    /// Names the route in a problem.
    pub(crate) fn instance<'a>(&'a self, problem: Problem<'a>) -> Problem<'a> {
        match self.pattern() {
            Some(pattern) => problem.instance(pattern),
            None => problem,
        }
    }
}

/// The URI as the client sent it: a nested router sees less.
pub(crate) fn uri(parts: &Parts) -> &Uri {
    #[cfg(feature = "axum")]
    if let Some(axum::extract::OriginalUri(uri)) = parts.extensions.get() {
        return uri;
    }
    &parts.uri
}

#[cfg(feature = "axum")]
mod extract {
    use std::convert::Infallible;

    use axum::extract::{FromRequestParts, OptionalFromRequestParts};
    use http::request::Parts;
    use lock_core::LockError;
    use lock_tower::LockRejection;

    use super::{IdempotencyKey, Route};

    impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
        type Rejection = LockRejection;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, LockRejection> {
            match parts.extensions.get::<Self>() {
                Some(key) => Ok(key.clone()),
                None => Err(without_a_key(parts).into()),
            }
        }
    }

    /// Names the route and none of its values: there is a line in the log for each route.
    fn without_a_key(parts: &Parts) -> LockError {
        let route = Route::of(parts);
        let pattern = route.pattern().unwrap_or("a fallback");
        LockError::misconfigured(format!(
            "the handler of `{} {pattern}` extracts `IdempotencyKey`, and its request has none; put an \
             `IdempotencyLayer` with `.required()` on the route, or extract `Option<IdempotencyKey>`",
            parts.method
        ))
    }

    impl<S: Send + Sync> OptionalFromRequestParts<S> for IdempotencyKey {
        type Rejection = Infallible;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
            Ok(parts.extensions.get::<Self>().cloned())
        }
    }
}
