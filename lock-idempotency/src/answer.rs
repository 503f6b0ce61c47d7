//! The answers of the layer, other than those of a lock.

use std::error::Error;

use bytes::Bytes;
use http::{HeaderName, Response, StatusCode};
use lock_core::__private::Repeated;
use lock_core::answer::{Answer, Mistakes, Problem};
use lock_core::{LockError, LockErrorKind};
use lock_tower::LockRejection;

use crate::key::Route;

/// Mistakes of the set-up that were logged.
static MISTAKES: Mistakes = Mistakes::new();

/// What is wrong with a request, and its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wrong<'a> {
    /// The header of this name is not there.
    KeyMissing(&'a HeaderName),
    /// The header of this name is no key.
    KeyInvalid(&'a HeaderName),
    ScopeMissing,
    Reused,
}

impl Wrong<'_> {
    pub(crate) fn to_response(self, route: &Route) -> Response<Bytes> {
        let problem = match self {
            Self::KeyMissing(header) => Problem::other(
                StatusCode::BAD_REQUEST,
                "urn:distributed-lock:problem:idempotency-key-missing",
                "Idempotency key missing",
                format!(
                    "This request needs a key of its own, such as a UUID, in the header `{header}`; send the \
                     same key with each retry. Nothing was done."
                ),
                "idempotency-key-missing",
            ),
            Self::KeyInvalid(header) => Problem::other(
                StatusCode::BAD_REQUEST,
                "urn:distributed-lock:problem:idempotency-key-invalid",
                "Not an idempotency key",
                format!(
                    "A key is one header `{header}` with 1 to 255 visible ASCII characters, bare or in double \
                     quotes. Nothing was done."
                ),
                "idempotency-key-invalid",
            ),
            Self::ScopeMissing => Problem::other(
                StatusCode::BAD_REQUEST,
                "urn:distributed-lock:problem:idempotency-scope-missing",
                "Caller unknown",
                "An idempotency key belongs to a caller, and this request does not say who calls. Nothing \
                 was done.",
                "idempotency-scope-missing",
            ),
            Self::Reused => Problem::other(
                StatusCode::UNPROCESSABLE_ENTITY,
                "urn:distributed-lock:problem:idempotency-key-reused",
                "Idempotency key used before",
                "The key was used with another request. This one did nothing; send it with a new key.",
                "idempotency-key-reused",
            ),
        };
        route.instance(problem).to_response()
    }
}

/// The answer where the store failed before the handler ran.
pub(crate) fn store_failed(error: &LockError, route: &Route) -> Response<Bytes> {
    let unavailable = Answer::of(LockErrorKind::Unavailable, false);
    let problem = if error.is_misconfigured() {
        MISTAKES.log(error);
        Problem::new(Answer::to(error))
    } else {
        static FAILED: Repeated = Repeated::new();
        let name = route.pattern().unwrap_or_default();
        FAILED.happened(name, |times| {
            tracing::warn!(
                route = name,
                times,
                error = error as &dyn Error,
                "requests with an idempotency key are refused: the store of the keys failed"
            );
        });
        Problem::other(
            StatusCode::SERVICE_UNAVAILABLE,
            "urn:distributed-lock:problem:idempotency-store-unavailable",
            "Idempotency keys are unavailable",
            "Whether this request was worked on before cannot be told now. Nothing was done; try again later.",
            "idempotency-store-unavailable",
        )
        .retry_after(unavailable.retry_after())
    };
    let mut response = route.instance(problem).to_response();
    response.extensions_mut().insert(error.kind());
    response
}

/// The answer where the caller's scope could not be read.
pub(crate) fn scope_failed(error: LockError, route: &Route) -> Response<Bytes> {
    match error.kind() {
        LockErrorKind::InvalidName => Wrong::ScopeMissing.to_response(route),
        LockErrorKind::Misconfigured => mistaken(error),
        _ => LockRejection::from(error).to_response(),
    }
}

/// The answer where the layer is set up wrongly: what is wrong is in the log.
pub(crate) fn mistaken(error: LockError) -> Response<Bytes> {
    MISTAKES.log(&error);
    LockRejection::from(error).to_response()
}

/// The answer to a request that has no lock: of one whose key is in use it says that.
pub(crate) fn not_locked(rejection: &LockRejection) -> Response<Bytes> {
    if !rejection.error().is_contended() {
        return rejection.to_response();
    }
    let mut problem = Problem::other(
        StatusCode::CONFLICT,
        "urn:distributed-lock:problem:idempotency-key-in-use",
        "Request in progress",
        "The first request with this key is still worked on. This one did nothing; try again later with \
         the same key.",
        "idempotency-key-in-use",
    )
    .retry_after(rejection.retry_after());
    if let Some(route) = rejection.route() {
        problem = problem.instance(route);
    }
    problem.to_response()
}

/// What nothing but a mistake in this crate leads to, as an answer.
pub(crate) fn out_of_place() -> LockError {
    LockError::misconfigured("a request reached the lock of its idempotency key without the key")
}
