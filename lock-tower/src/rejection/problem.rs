//! The body of a rejection: RFC 9457, "Problem Details for HTTP APIs".

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use lock_core::LockErrorKind;
use serde::Serialize;

use super::LockRejection;

/// A field for each member, in the order in which they are sent.
#[derive(Serialize)]
pub(super) struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    #[serde(skip)]
    code: StatusCode,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

/// What is the same for all problems of a kind. No text says more than its kind: what an error
/// itself says is for the log.
pub(super) struct Kind {
    r#type: &'static str,
    pub(super) title: &'static str,
    pub(super) detail: Option<&'static str>,
}

impl Kind {
    pub(super) fn of(kind: LockErrorKind) -> Self {
        match kind {
            LockErrorKind::Contended => CONTENDED,
            LockErrorKind::Unavailable | LockErrorKind::Closed => UNAVAILABLE,
            LockErrorKind::Lost => LOST,
            LockErrorKind::InvalidName => NAME_INVALID,
            _ => MISCONFIGURED,
        }
    }
}

const CONTENDED: Kind = Kind {
    r#type: "urn:distributed-lock:problem:lock-contended",
    title: "Locked by another request",
    detail: Some("Another request is working on this. Nothing was done; try again later."),
};
const UNAVAILABLE: Kind = Kind {
    r#type: "urn:distributed-lock:problem:lock-unavailable",
    title: "Locks are unavailable",
    detail: Some("Whether another request is working on this cannot be told now; try again later."),
};
const LOST: Kind = Kind {
    r#type: "urn:distributed-lock:problem:lock-lost",
    title: "Lock lost",
    detail: Some("The lock was lost while the request was worked on, and the work was stopped."),
};
const NAME_INVALID: Kind = Kind {
    r#type: "urn:distributed-lock:problem:lock-name-invalid",
    title: "Not a lock name",
    detail: Some("A value in the request is missing, or cannot be part of the name of a lock."),
};
const BODY_BROKEN: Kind = Kind {
    r#type: "urn:distributed-lock:problem:request-body",
    title: "Request body incomplete",
    detail: Some("The body of the request could not be read while it waited. Nothing was done."),
};
const BODY_TOO_LARGE: Kind = Kind {
    r#type: "urn:distributed-lock:problem:request-body",
    title: "Request body too large",
    detail: Some("The body of the request is larger than allowed. Nothing was done."),
};
const MISCONFIGURED: Kind = Kind {
    r#type: "urn:distributed-lock:problem:lock-misconfigured",
    title: "Internal server error",
    detail: None,
};

impl<'a> Problem<'a> {
    pub(super) fn of(rejection: &'a LockRejection) -> Self {
        let kind = Kind::of(rejection.kind());
        let is_ours = kind.detail.is_none();
        let millis = |duration: std::time::Duration| duration.as_millis().try_into().ok();
        Self {
            r#type: kind.r#type,
            title: kind.title,
            status: rejection.status().as_u16(),
            code: rejection.status(),
            detail: kind.detail,
            instance: rejection.route(),
            reason: rejection.reason(),
            lock: (!is_ours).then(|| rejection.template()).flatten(),
            waited_ms: (rejection.error().waited()).and_then(millis),
            retry_after_ms: rejection.retry_after().and_then(millis),
            outcome: rejection.error().is_lost().then_some("unknown"),
        }
    }

    /// Of a request whose body failed while it waited for its lock.
    pub(super) fn of_body(status: StatusCode) -> Self {
        let kind = match status {
            StatusCode::PAYLOAD_TOO_LARGE => BODY_TOO_LARGE,
            _ => BODY_BROKEN,
        };
        Self {
            r#type: kind.r#type,
            title: kind.title,
            status: status.as_u16(),
            code: status,
            detail: kind.detail,
            instance: None,
            reason: "request-body",
            lock: None,
            waited_ms: None,
            retry_after_ms: None,
            outcome: None,
        }
    }

    pub(super) fn to_response(&self) -> Response<Bytes> {
        // Text and numbers: there is nothing in it that could fail.
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut response = Response::new(json.into());
        *response.status_mut() = self.code;
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, problem);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
