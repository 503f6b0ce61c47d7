//! The answer to a request that is refused, and what its client still sends.
//!
//! The answer goes out first. Then the body is read on and thrown away, since a connection that is
//! closed over unread bytes is reset, and the reset can overtake the answer on its way to the client:
//! behind a proxy that is a 502. Both its size and its time are bounded.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::{HeaderValue, Response};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::upload::{Upload, Uploads};

/// So many bytes are read after the answer. Then the connection is kept open without reading on:
/// a client that is still sending has to look for an answer.
const DRAINED: usize = 1024 * 1024;

/// How long a connection is kept open for the body of a refused request.
const LINGERING: Duration = Duration::from_secs(5);

/// An answer of ours.
pub(crate) struct Refusal {
    response: Response<Bytes>,
    rest: Rest,
}

impl Refusal {
    pub(crate) fn new<B: 'static>(
        mut response: Response<Bytes>,
        parts: &Parts,
        upload: Upload<B>,
        uploads: &Uploads,
    ) -> Self {
        let reading = upload.into_reading(parts, uploads);
        let rest = reading.and_then(|mut reading| {
            let left = reading.rest()?;
            let is_large = left.upper().is_none_or(|upper| upper > DRAINED as u64);
            // One that waits for 100 need not send it at all.
            if is_large || parts.headers.contains_key(EXPECT) {
                close(&mut response);
            }
            let mut room = DRAINED;
            let drain = poll_fn(move |cx| reading.poll_drain(cx, &mut room));
            Some(Box::pin(drain) as Pin<Box<dyn Future<Output = ()> + Send>>)
        });
        Self {
            response,
            rest: Rest(rest),
        }
    }

    /// The answer to a request whose body failed: there is nothing to read any more.
    pub(crate) fn of_broken_body(mut response: Response<Bytes>) -> Self {
        close(&mut response);
        Self {
            response,
            rest: Rest(None),
        }
    }

    pub(crate) fn into_response<B>(self, body: impl FnOnce(Bytes, Rest) -> B) -> Response<B> {
        let Self { response, rest } = self;
        response.map(|data| body(data, rest))
    }
}

fn close(response: &mut Response<Bytes>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
}

/// The rest of a request's body, which is read when this is dropped: a server drops the body of the
/// answer once that is written.
pub(crate) struct Rest(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Rest {
    pub(crate) const NONE: Self = Self(None);
}

impl Drop for Rest {
    fn drop(&mut self) {
        if let (Some(drain), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move {
                // Too large or too slow: the server closes the connection.
                let _ = timeout(LINGERING, drain).await;
            });
        }
    }
}
