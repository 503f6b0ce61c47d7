//! An error of a lock as the response of an axum handler.

use axum_core::body::Body;
use axum_core::response::{IntoResponse, Response};

use super::{Answer, Mistakes, Problem};
use crate::LockError;

/// ```
/// use std::time::Duration;
/// use axum_core::response::{IntoResponse, Response};
/// use lock_core::answer::{Problem, http::StatusCode};
///
/// fn busy() -> Response {
///     let detail = "Another request refunds this payment right now; this one did nothing.";
///     Problem::other(StatusCode::CONFLICT, "urn:shop:problem:refund-in-progress", "Refund in progress", detail, "refund-in-progress")
///         .retry_after(Some(Duration::from_secs(1)))
///         .into_response()
/// }
/// # assert_eq!(busy().headers()["retry-after"], "1");
/// ```
impl IntoResponse for Problem<'_> {
    fn into_response(self) -> Response {
        self.to_response().map(Body::from)
    }
}

/// The answers of [`answer`](crate::answer). The [kind](crate::LockErrorKind) is in the extensions of the
/// response, for the layers around; a layer that retries looks at the status, which is 500 once work may
/// have been done. What is wrong with a set-up is in the log, and not in the response.
///
#[cfg_attr(all(feature = "macros", feature = "memory"), doc = "```")]
#[cfg_attr(not(all(feature = "macros", feature = "memory")), doc = "```ignore")]
/// use lock_core::{LockError, distributed_lock};
///
/// #[distributed_lock("payment:refund:<id>", wait = "0s")] // with `Path(id): Path<u64>`, say
/// async fn refund(id: u64) -> Result<String, LockError> {
///     Ok(format!("payment {id} is refunded")) // a refusal is 409, a backend that is down 503, ..
/// }
/// ```
impl IntoResponse for LockError {
    fn into_response(self) -> Response {
        if self.is_misconfigured() {
            Mistakes::of_handlers().log(&self);
        }
        let mut response = Problem::new(Answer::to(&self)).about(&self).to_response();
        response.extensions_mut().insert(self.kind());
        response.map(Body::from)
    }
}
