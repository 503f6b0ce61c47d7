//! The answer to a request that is refused, and what its client still sends.
//!
//! The answer goes out first. Then the body is read on and thrown away, since a connection that is
//! closed over unread bytes is reset, and the reset can overtake the answer on its way to the client:
//! behind a proxy that is a 502. Both its size and its time are bounded.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::{HeaderValue, Response, Version};
use http_body::{Body, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::replay::ReplayedBody;
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
            let mut room = DRAINED;
            let drain = poll_fn(move |cx| reading.poll_drain(cx, &mut room));
            Some(Rest::drained(&mut response, parts, &left, drain))
        });
        Self {
            response,
            rest: rest.unwrap_or(Rest::NONE),
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
pub struct Rest(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Rest {
    /// Nothing is left to read.
    pub const NONE: Self = Self(None);

    /// What is left of the body of a request that is answered with `response`. HTTP/2 resets the one
    /// stream, and needs none of this.
    pub fn of<B>(body: B, parts: &Parts, response: &mut Response<Bytes>) -> Self
    where
        B: Body + Send + 'static,
        B::Data: Send,
    {
        if parts.version > Version::HTTP_11 || body.is_end_stream() {
            return Self::NONE;
        }
        let left = body.size_hint();
        let mut body = ReplayedBody::new(Box::pin(body));
        let mut room = DRAINED;
        let drain = poll_fn(move |cx| body.poll_drain(cx, &mut room));
        Self::drained(response, parts, &left, drain)
    }

    fn drained(
        response: &mut Response<Bytes>,
        parts: &Parts,
        left: &SizeHint,
        drain: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let is_large = left.upper().is_none_or(|upper| upper > DRAINED as u64);
        // One that waits for 100 need not send it at all.
        if is_large || parts.headers.contains_key(EXPECT) {
            close(response);
        }
        Self(Some(Box::pin(drain)))
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rest").field(&self.0.is_some()).finish()
    }
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
