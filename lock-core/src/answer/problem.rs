//! The body of an answer: RFC 9457, "Problem Details for HTTP APIs".

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::Answer;
use crate::{LockError, LockName};

/// A response to a request that was not served, as `application/problem+json`.
///
/// Members beside `type`, `title`, `status`, `detail` and `reason`, where they are known: `instance`, `lock`,
/// `holder`, `waited_ms`, `retry_after_ms` (with the header `Retry-After` in whole seconds), and `"outcome":
/// "unknown"` where work may have been done.
#[derive(Debug, Serialize)]
#[must_use = "a problem does nothing until it is made a response"]
pub struct Problem<'a> {
    // In the order in which they are sent.
    r#type: &'static str,
    title: &'static str,
    #[serde(serialize_with = "number")]
    status: StatusCode,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

fn number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl<'a> Problem<'a> {
    /// A problem with what the answer says, and nothing of a request.
    pub fn new(answer: &Answer) -> Self {
        Self {
            r#type: answer.r#type,
            title: answer.title,
            status: answer.status,
            detail: answer.detail.map(Cow::Borrowed),
            instance: None,
            reason: answer.reason,
            lock: None,
            holder: None,
            waited_ms: None,
            retry_after_ms: answer.retry_after().map(millis),
            outcome: answer.outcome_unknown.then_some("unknown"),
        }
    }

    /// A problem of another kind, without a lock; the same headers and members.
    pub fn other(
        status: StatusCode,
        r#type: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'a, str>>,
        reason: &'static str,
    ) -> Self {
        Self {
            r#type,
            title,
            status,
            detail: Some(detail.into()),
            instance: None,
            reason,
            lock: None,
            holder: None,
            waited_ms: None,
            retry_after_ms: None,
            outcome: None,
        }
    }

    /// With what the error tells that a client may know: how long it waited, and the template or
    /// `entity:operation` of the lock, never the filled name.
    pub fn about(mut self, error: &'a LockError) -> Self {
        self.waited_ms = error.waited().map(millis);
        match error.lock() {
            Some(name) => self.lock(LockName::label(name)),
            None => self,
        }
    }

    /// With the lock, by its template. A problem without a `detail` does not show it: what is wrong with a
    /// set-up is for the log.
    pub fn lock(mut self, template: &'a str) -> Self {
        self.lock = self.detail.is_some().then_some(template);
        self
    }

    /// With the instance that holds the lock. It is the name or the address of a machine of yours: only for
    /// clients that may know.
    pub fn holder(mut self, instance: &'a str) -> Self {
        self.holder = Some(instance);
        self
    }

    /// With the pattern of the route, and not the path: filled parameters can be secrets.
    pub fn instance(mut self, route: &'a str) -> Self {
        self.instance = Some(route);
        self
    }

    /// With another status.
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With another time after which to try again, or none.
    pub fn retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after_ms = after.map(millis);
        self
    }

    /// The response; it may not be cached.
    #[must_use]
    pub fn to_response(&self) -> Response<Bytes> {
        // Text and numbers: there is nothing in it that could fail.
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut response = Response::new(json.into());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, problem);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(millis) = self.retry_after_ms {
            headers.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1_000)));
        }
        response
    }
}
