//! The answer to a request that could not have its lock, or lost it.

mod grpc;
mod problem;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::LengthLimitError;
use lock_core::{LockError, LockErrorKind, LockTemplate};

use crate::name::Route;
use problem::Problem;

/// Why a request was refused, as a response: `application/problem+json` (RFC 9457).
///
/// | kind of the error | status | `type`, after `urn:distributed-lock:problem:` | `reason` |
/// | --- | --- | --- | --- |
/// | contended, the policy waits | 409 | `lock-contended` | `lock-wait-timeout` |
/// | contended, it does not | 409 | `lock-contended` | `lock-contended` |
/// | unavailable | 503 | `lock-unavailable` | `lock-unavailable` |
/// | closed | 503 | `lock-unavailable` | `lock-closed` |
/// | lost | 500 | `lock-lost` | `lock-lost` |
/// | invalid name | 400 | `lock-name-invalid` | `lock-name-invalid` |
/// | misconfigured, any other | 500 | `lock-misconfigured` | `lock-misconfigured` |
///
/// The `type` URIs are stable names, not addresses. Members beside `type`, `title`, `status`,
/// `detail` and `reason`, where they are known: `instance` (the pattern of the route: filled
/// parameters can be secrets), `lock` (the template or `entity:operation`, never the filled name),
/// `waited_ms`, `retry_after_ms` (409 and 503, with `Retry-After` in whole seconds, jittered), and
/// `"outcome": "unknown"` where the lock was lost. What is wrong with the set-up is for the log,
/// where it is once; the client is told no more than that. Nothing of it is cacheable, and the
/// [`LockErrorKind`] is in the extensions of the response for the layers around.
///
/// One answer of the layers is not made from this type, since no lock is at fault: a request whose
/// body fails while it waits is answered 400, or 413 where a limit outside was exceeded, with the
/// `type` `urn:distributed-lock:problem:request-body` and the `reason` `request-body`.
///
/// Clients of gRPC get a status instead: see [`LockLayer::grpc`](crate::LockLayer::grpc).
///
/// Handlers make one from a [`LockError`]:
///
#[cfg_attr(feature = "axum", doc = "```")]
#[cfg_attr(not(feature = "axum"), doc = "```ignore")]
/// use axum::extract::{Path, State};
/// use lock_core::{LockProvider, LockPolicy, lock_name};
/// use lock_tower::LockRejection;
///
/// async fn rebuild(
///     State(locks): State<LockProvider>,
///     Path(id): Path<u64>,
/// ) -> Result<&'static str, LockRejection> {
///     let guard = locks.lock(lock_name!("report:rebuild:<id>"))?.acquire(LockPolicy::user_request()).await?;
///     guard.protect(async { /* .. */ }).await?;
///     guard.release().await?;
///     Ok("rebuilt")
/// }
/// # let _ = axum::Router::<LockProvider>::new().route("/{id}", axum::routing::post(rebuild));
/// ```
pub struct LockRejection {
    error: LockError,
    retry_after: Option<Duration>,
    asked: Option<Box<Asked>>,
}

/// The request that a rejection answers.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) route: Route,
    /// `None` where no entry of a table was chosen.
    pub(crate) template: Option<LockTemplate>,
    pub(crate) wait: Duration,
    /// Whether the client understands the statuses of gRPC alone.
    pub(crate) is_grpc: bool,
}

impl LockRejection {
    pub(crate) fn new(error: LockError, asked: Asked) -> Self {
        Self {
            asked: Some(Box::new(asked)),
            ..error.into()
        }
    }

    /// What went wrong.
    #[must_use]
    pub fn error(&self) -> &LockError {
        &self.error
    }

    /// What went wrong, for a caller that answers in a way of its own.
    #[must_use]
    pub fn into_error(self) -> LockError {
        self.error
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> LockErrorKind {
        self.error.kind()
    }

    /// The method of the request, where a layer refused it.
    #[must_use]
    pub fn method(&self) -> Option<&Method> {
        self.asked.as_ref().map(|asked| &asked.method)
    }

    /// The URI of the request as the client sent it, where a layer refused it.
    #[must_use]
    pub fn uri(&self) -> Option<&Uri> {
        self.asked.as_ref().map(|asked| &asked.uri)
    }

    /// The pattern of the route, as `/orders/{id}`, where one is known.
    #[must_use]
    pub fn route(&self) -> Option<&str> {
        self.asked.as_ref()?.route.pattern()
    }

    /// The template of the lock, or its `entity:operation` where it was made without one.
    #[must_use]
    pub fn template(&self) -> Option<&str> {
        let asked = self
            .asked
            .as_ref()
            .and_then(|asked| asked.template.as_ref());
        asked
            .map(LockTemplate::as_str)
            .or_else(|| Some(self.error.lock()?.label()))
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.kind() {
            LockErrorKind::Contended => StatusCode::CONFLICT,
            LockErrorKind::Unavailable | LockErrorKind::Closed => StatusCode::SERVICE_UNAVAILABLE,
            LockErrorKind::InvalidName => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The member `reason` of the answer: stable, for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.kind() {
            LockErrorKind::Contended if self.has_waited() => "lock-wait-timeout",
            LockErrorKind::Contended => "lock-contended",
            LockErrorKind::Unavailable => "lock-unavailable",
            LockErrorKind::Closed => "lock-closed",
            LockErrorKind::Lost => "lock-lost",
            LockErrorKind::InvalidName => "lock-name-invalid",
            _ => "lock-misconfigured",
        }
    }

    /// When it is worth trying again; drawn anew for each rejection, so that those who were refused
    /// together do not come back together.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    fn has_waited(&self) -> bool {
        match &self.asked {
            Some(asked) => !asked.wait.is_zero(),
            // A try that does not wait takes its time too.
            None => {
                (self.error.waited()).is_some_and(|waited| waited >= Duration::from_millis(100))
            }
        }
    }

    /// The status code for clients of gRPC:
    ///
    /// | kind of the error | code |
    /// | --- | --- |
    /// | contended | `ABORTED` (10) |
    /// | unavailable, closed | `UNAVAILABLE` (14) |
    /// | invalid name | `INVALID_ARGUMENT` (3) |
    /// | lost, misconfigured, any other | `INTERNAL` (13) |
    ///
    /// With tonic, a method that locks by itself answers with
    /// `Status::new(rejection.grpc_code().into(), rejection.to_string())`.
    #[must_use]
    pub fn grpc_code(&self) -> i32 {
        grpc::code(self.kind())
    }

    /// The answer, as this type documents it: a problem, or a status of gRPC where the layer was told
    /// to give such answers and the request is one of gRPC.
    #[must_use]
    pub fn to_response(&self) -> Response<Bytes> {
        if self.asked.as_ref().is_some_and(|asked| asked.is_grpc) {
            return self.to_grpc_response();
        }
        let mut response = Problem::of(self).to_response();
        response.extensions_mut().insert(self.kind());
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            headers.insert(
                RETRY_AFTER,
                HeaderValue::from(after.as_millis().div_ceil(1000) as u64),
            );
        }
        response
    }
}

/// The trailers of gRPC that end the response to a request whose lock was lost.
pub(crate) fn grpc_trailers(lost: LockError) -> HeaderMap {
    grpc::trailers(&lost.into())
}

/// The answer to a request whose body failed while it waited for its lock, as extractors of axum
/// answer it.
pub(crate) fn body_problem(broken: &(dyn StdError + 'static)) -> Response<Bytes> {
    let mut cause = Some(broken);
    let mut is_too_large = false;
    while let Some(error) = cause {
        is_too_large |= error.is::<LengthLimitError>();
        cause = error.source();
    }
    let status = if is_too_large {
        StatusCode::PAYLOAD_TOO_LARGE
    } else {
        StatusCode::BAD_REQUEST
    };
    Problem::of_body(status).to_response()
}

impl LockRejection {
    /// The answer for clients of gRPC, as [`LockLayer::grpc`](crate::LockLayer::grpc) documents it.
    #[must_use]
    pub fn to_grpc_response(&self) -> Response<Bytes> {
        let mut response = grpc::response(self);
        response.extensions_mut().insert(self.kind());
        response
    }
}

impl From<LockError> for LockRejection {
    fn from(error: LockError) -> Self {
        let retry_after = match error.kind() {
            LockErrorKind::Contended => Some(jitter(1_000..3_000)),
            LockErrorKind::Unavailable | LockErrorKind::Closed => Some(jitter(2_000..6_000)),
            _ => None,
        };
        Self {
            error,
            retry_after,
            asked: None,
        }
    }
}

fn jitter(millis: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(millis))
}

impl fmt::Display for LockRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl fmt::Debug for LockRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockRejection")
            .field("error", &self.error)
            .field("method", &self.method())
            .field("route", &self.route())
            .field("template", &self.template())
            .finish_non_exhaustive()
    }
}

impl StdError for LockRejection {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for LockRejection {
    fn into_response(self) -> axum::response::Response {
        // The layers log their own before this.
        if self.asked.is_none() && self.error.is_misconfigured() {
            crate::mistake::OF_HANDLERS.log(&self.error);
        }
        self.to_response().map(axum::body::Body::from)
    }
}
