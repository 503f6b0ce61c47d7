//! Refusals in the words of this service, in the form of those of the locks: `application/problem+json`.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lock_core::answer::Problem;

/// Why nothing was done: `title` and `detail` for people; the last part of `type`, a URN, for programs.
pub(crate) fn problem(
    status: StatusCode,
    r#type: &'static str,
    title: &'static str,
    detail: &'static str,
) -> Response {
    let reason = r#type.rsplit(':').next().unwrap_or(r#type);
    // Of these a second try can find it otherwise.
    let is_passing = matches!(
        status,
        StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE
    );
    Problem::other(status, r#type, title, detail, reason)
        .retry_after(is_passing.then_some(Duration::from_secs(1)))
        .into_response()
}
