//! Refusals in the words of this service, as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Another request is doing the same: 409, and when to come back.
#[derive(Debug, Serialize)]
pub(crate) struct Conflict {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'static str,
    reason: &'static str,
}

impl Conflict {
    const HEADERS: [(HeaderName, &str); 3] = [
        (CONTENT_TYPE, "application/problem+json"),
        (RETRY_AFTER, "1"),
        (CACHE_CONTROL, "no-store"),
    ];

    /// `reason` is for programs, the others are for people.
    pub(crate) fn new(reason: &'static str, title: &'static str, detail: &'static str) -> Self {
        Self {
            r#type: format!("urn:orders:problem:{reason}"),
            title,
            status: StatusCode::CONFLICT.as_u16(),
            detail,
            reason,
        }
    }
}

impl IntoResponse for Conflict {
    fn into_response(self) -> Response {
        (StatusCode::CONFLICT, Self::HEADERS, Json(self)).into_response()
    }
}
