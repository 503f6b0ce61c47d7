//! The body of a rejection: RFC 9457, "Problem Details for HTTP APIs".

use bytes::Bytes;
use lock_core::LockErrorKind;
use serde::Serialize;

use super::LockRejection;

/// A field for each member, in the order in which they are sent.
#[derive(Serialize)]
pub(super) struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
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
struct Kind {
    r#type: &'static str,
    title: &'static str,
    detail: Option<&'static str>,
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
const MISCONFIGURED: Kind = Kind {
    r#type: "urn:distributed-lock:problem:lock-misconfigured",
    title: "Internal server error",
    detail: None,
};

impl<'a> Problem<'a> {
    pub(super) fn of(rejection: &'a LockRejection) -> Self {
        let kind = match rejection.kind() {
            LockErrorKind::Contended => CONTENDED,
            LockErrorKind::Unavailable | LockErrorKind::Closed => UNAVAILABLE,
            LockErrorKind::Lost => LOST,
            LockErrorKind::InvalidName => NAME_INVALID,
            _ => MISCONFIGURED,
        };
        let is_ours = kind.detail.is_none();
        let millis = |duration: std::time::Duration| duration.as_millis().try_into().ok();
        Self {
            r#type: kind.r#type,
            title: kind.title,
            status: rejection.status().as_u16(),
            detail: kind.detail,
            instance: rejection.route(),
            reason: rejection.reason(),
            lock: (!is_ours).then(|| rejection.template()).flatten(),
            waited_ms: (rejection.error().waited()).and_then(millis),
            retry_after_ms: rejection.retry_after().and_then(millis),
            outcome: rejection.error().is_lost().then_some("unknown"),
        }
    }

    pub(super) fn to_json(&self) -> Bytes {
        // Text and numbers: there is nothing in it that could fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}
