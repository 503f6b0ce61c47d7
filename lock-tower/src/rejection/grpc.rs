//! A rejection for clients of gRPC: a response of trailers only.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use lock_core::{LockError, LockErrorKind};

use super::LockRejection;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const HOLDER: HeaderName = HeaderName::from_static("distributed-lock-holder");
const REASON: HeaderName = HeaderName::from_static("distributed-lock-reason");

/// Status codes of gRPC.
const INVALID_ARGUMENT: i32 = 3;
const ABORTED: i32 = 10;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;

/// `ABORTED` and `UNAVAILABLE` are only said where nothing was done: clients repeat such calls.
pub(super) fn code(error: &LockError) -> i32 {
    match error.kind() {
        _ if error.is_outcome_unknown() => INTERNAL,
        LockErrorKind::Contended => ABORTED,
        LockErrorKind::Unavailable | LockErrorKind::Closed => UNAVAILABLE,
        LockErrorKind::InvalidName => INVALID_ARGUMENT,
        _ => INTERNAL,
    }
}

/// The status, as headers of a response without a body or as trailers of one with a body.
pub(super) fn trailers(rejection: &LockRejection) -> HeaderMap {
    let answer = rejection.answer();
    // Printable ASCII without `%`, which is as it is when it is percent-encoded.
    let message = HeaderValue::from_static(answer.detail.unwrap_or(answer.title));
    let pushback = match rejection.retry_after() {
        Some(after) => HeaderValue::from(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        // Not again by itself.
        None => HeaderValue::from_static("-1"),
    };
    let mut trailers = HeaderMap::with_capacity(6);
    trailers.insert(STATUS, code(rejection.error()).into());
    trailers.insert(MESSAGE, message);
    trailers.insert(PUSHBACK, pushback);
    trailers.insert(REASON, HeaderValue::from_static(rejection.reason()));
    // Printable ASCII as well.
    let holder = rejection.holding_instance().map(HeaderValue::from_str);
    if let Some(Ok(holder)) = holder {
        trailers.insert(HOLDER, holder);
    }
    trailers
}

pub(super) fn response(rejection: &LockRejection) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.headers_mut() = trailers(rejection);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    response
}

#[cfg(test)]
mod tests {
    use lock_core::answer::{ANSWERS, Answer};

    #[test]
    fn messages_need_no_encoding() {
        for Answer { title, detail, .. } in ANSWERS {
            for text in [Some(*title), *detail].into_iter().flatten() {
                let is_plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'%';
                assert!(text.bytes().all(is_plain), "{text}");
            }
        }
    }
}
