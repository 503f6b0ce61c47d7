//! Refusals in the words of this service, as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};

/// Why nothing was done, for people and for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    r#type: String,
    title: &'static str,
    #[serde(serialize_with = "number")]
    status: StatusCode,
    detail: &'static str,
    reason: &'static str,
}

fn number<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    const HEADERS: [(HeaderName, &str); 2] = [
        (CONTENT_TYPE, "application/problem+json"),
        (CACHE_CONTROL, "no-store"),
    ];

    /// `reason` is for programs, `title` and `detail` are for people.
    pub(crate) fn new(
        status: StatusCode,
        reason: &'static str,
        title: &'static str,
        detail: &'static str,
    ) -> Self {
        Self {
            r#type: format!("urn:orders:problem:{reason}"),
            title,
            status,
            detail,
            reason,
        }
    }

    /// Another request does or did the same: 409, and when to come back.
    pub(crate) fn conflict(
        reason: &'static str,
        title: &'static str,
        detail: &'static str,
    ) -> Self {
        Self::new(StatusCode::CONFLICT, reason, title, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let is_passing = matches!(
            self.status,
            StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE
        );
        let mut response = (self.status, Self::HEADERS, Json(self)).into_response();
        if is_passing {
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
