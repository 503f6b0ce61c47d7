//! The answer to a request that could not have its lock, or lost it.

mod grpc;

use std::error::Error as StdError;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Uri, Version};
use http_body_util::LengthLimitError;
use lock_core::answer::{Answer, Problem};
use lock_core::{Holder, LockError, LockErrorKind, LockTemplate};

use crate::name::Route;

/// Why a request was refused, as a response: `application/problem+json` (RFC 9457).
///
/// The answers, by the kind of the error, are those of [`lock_core::answer`]; `lock-wait-timeout` stands for
/// contention under a policy that waits. Members beside `type`, `title`, `status`, `detail` and `reason`,
/// where they are known: `instance` (the pattern of the route: filled parameters can be secrets), `lock` (the
/// template or `entity:operation`, never the filled name), `holder` (the instance that holds it, and only where
/// that was [asked for](crate::LockLayer::name_holder)), `waited_ms`, `retry_after_ms` (409 and 503, with
/// `Retry-After` in whole seconds, jittered), and `"outcome": "unknown"` where work may have been done. What is
/// wrong with the set-up is for the log, where it is once; the answer says no more than that. Nothing of
/// it is cacheable, and the [`LockErrorKind`] is in the extensions of the response for the layers around.
///
/// One answer of the layers is not made from this type, since no lock is at fault: a request whose
/// body fails while it waits is answered 400, or 413 where a limit outside was exceeded, with the
/// `type` `urn:distributed-lock:problem:request-body` and the `reason` `request-body`.
///
/// Clients of gRPC get a status instead: see [`LockLayer::grpc`](crate::LockLayer::grpc).
///
/// A handler of axum need not make one: a [`LockError`] is a response as well. One that looks into the
/// answer does:
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
///     let lock = locks.lock(lock_name!("report:rebuild:<id>"))?;
///     lock.run(LockPolicy::user_request(), async { /* .. */ }).await?;
///     Ok("rebuilt")
/// }
/// # let _ = axum::Router::<LockProvider>::new().route("/{id}", axum::routing::post(rebuild));
/// ```
///
/// An error that comes once work may have been done is no refusal, and is answered 500 with `"outcome":
/// "unknown"` and without `Retry-After`: a loss, and a release or a fencing token that had no answer. Of a
/// second lock that is refused after the first write only the handler knows that it is one:
/// [`LockError::with_outcome_unknown`].
pub struct LockRejection {
    error: LockError,
    retry_after: Option<Duration>,
    /// That of the table, unless the layer was given another.
    status: Option<StatusCode>,
    holder: Option<Holder>,
    asked: Option<Box<Asked>>,
}

/// The request that a rejection answers.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) uri: Uri,
    pub(crate) route: Route,
    /// `None` where no entry of a table was chosen.
    pub(crate) template: Option<LockTemplate>,
    pub(crate) wait: Duration,
    /// Whether the client understands the statuses of gRPC alone.
    pub(crate) is_grpc: bool,
    /// Of the lock that it was refused, where its client is to know.
    pub(crate) holder: Option<Holder>,
}

impl LockRejection {
    pub(crate) fn new(error: LockError, mut asked: Asked) -> Self {
        let holder = asked.holder.take();
        let rejection = Self {
            asked: Some(Box::new(asked)),
            ..error.into()
        };
        rejection.with_holder(holder)
    }

    pub(crate) fn with_status(mut self, status: Option<StatusCode>) -> Self {
        self.status = status;
        self
    }

    fn answer(&self) -> &'static Answer {
        match &self.asked {
            Some(asked) if !self.error.is_outcome_unknown() => {
                Answer::of(self.kind(), !asked.wait.is_zero())
            }
            _ => Answer::to(&self.error),
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
        self.status.unwrap_or(self.answer().status)
    }

    /// The member `reason` of the answer: stable, for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.answer().reason
    }

    /// When it is worth trying again; drawn anew for each rejection, so that those who were refused
    /// together do not come back together.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Who holds the lock, where that was asked for: by
    /// [`LockLayer::name_holder`](crate::LockLayer::name_holder), or with [`with_holder`](Self::with_holder).
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// The same answer, which tells its client the instance that holds the lock, in the member `holder`. Where the
    /// lock is [kept](Holder::until), it is worth trying again once it has opened.
    ///
    #[cfg_attr(feature = "axum", doc = "```")]
    #[cfg_attr(not(feature = "axum"), doc = "```ignore")]
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, lock_name};
    /// use lock_tower::LockRejection;
    ///
    /// async fn rebuild(locks: &LockProvider, id: u64) -> Result<(), LockRejection> {
    ///     let name = lock_name!("report:rebuild:<id>")?;
    ///     let work = locks.run(name.clone(), Duration::ZERO, async { /* .. */ }).await;
    ///     match work {
    ///         // To operators, on a route of theirs.
    ///         Err(error) if error.is_contended() => {
    ///             let holder = locks.holder(name).await?;
    ///             Err(LockRejection::from(error).with_holder(holder))
    ///         }
    ///         other => Ok(other?),
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn with_holder(mut self, holder: impl Into<Option<Holder>>) -> Self {
        self.holder = holder.into();
        let until = self.holder.as_ref().and_then(Holder::until);
        if let Some(left) = until.and_then(|until| until.duration_since(SystemTime::now()).ok()) {
            self.retry_after = self.retry_after.map(|after| left.saturating_add(after));
        }
        self
    }

    /// The status code for clients of gRPC:
    ///
    /// | kind of the error | code |
    /// | --- | --- |
    /// | contended | `ABORTED` (10) |
    /// | unavailable, closed | `UNAVAILABLE` (14) |
    /// | invalid name | `INVALID_ARGUMENT` (3) |
    /// | lost, misconfigured, any other | `INTERNAL` (13) |
    /// | any, [after work](LockError::is_outcome_unknown) | `INTERNAL` (13) |
    ///
    /// With tonic, a method that locks by itself answers with
    /// `Status::new(rejection.grpc_code().into(), rejection.to_string())`.
    #[must_use]
    pub fn grpc_code(&self) -> i32 {
        grpc::code(&self.error)
    }

    /// The answer, as this type documents it: a problem, or a status of gRPC where the layer was set so
    /// to give such answers and the request is one of gRPC.
    #[must_use]
    pub fn to_response(&self) -> Response<Bytes> {
        if self.asked.as_ref().is_some_and(|asked| asked.is_grpc) {
            return self.to_grpc_response();
        }
        let mut problem = (Problem::new(self.answer()).about(&self.error))
            .status(self.status())
            .retry_after(self.retry_after);
        if let Some(route) = self.route() {
            problem = problem.instance(route);
        }
        if let Some(template) = self.template() {
            problem = problem.lock(template);
        }
        if let Some(instance) = self.holding_instance() {
            problem = problem.holder(instance);
        }
        let mut response = problem.to_response();
        response.extensions_mut().insert(self.kind());
        response
    }

    /// What the answer says of the holder.
    fn holding_instance(&self) -> Option<&str> {
        self.holder.as_ref()?.instance()
    }
}

/// The trailers of gRPC that end the response to a request whose lock was lost.
pub(crate) fn grpc_trailers(lost: LockError) -> HeaderMap {
    grpc::trailers(&lost.into())
}

/// The answer to a request whose body failed while it waited for its lock, as extractors of axum
/// answer it.
#[must_use]
pub fn body_problem(broken: &(dyn StdError + 'static)) -> Response<Bytes> {
    let mut cause = Some(broken);
    let mut is_too_large = false;
    while let Some(error) = cause {
        is_too_large |= error.is::<LengthLimitError>();
        cause = error.source();
    }
    if is_too_large {
        return body_too_large();
    }
    request_body(
        StatusCode::BAD_REQUEST,
        "Request body incomplete",
        "The body of the request could not be read while it waited. Nothing was done.",
    )
}

/// The answer to a request whose body is larger than a limit.
#[must_use]
pub fn body_too_large() -> Response<Bytes> {
    request_body(
        StatusCode::PAYLOAD_TOO_LARGE,
        "Request body too large",
        "The body of the request is larger than allowed. Nothing was done.",
    )
}

fn request_body(status: StatusCode, title: &'static str, detail: &'static str) -> Response<Bytes> {
    let r#type = "urn:distributed-lock:problem:request-body";
    Problem::other(status, r#type, title, detail, "request-body").to_response()
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
        let retry_after = Answer::to(&error).retry_after();
        Self {
            error,
            retry_after,
            status: None,
            holder: None,
            asked: None,
        }
    }
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
        // The layers have logged theirs.
        if self.asked.is_none() && self.error.is_misconfigured() {
            lock_core::answer::Mistakes::of_handlers().log(&self.error);
        }
        self.to_response().map(axum::body::Body::from)
    }
}
