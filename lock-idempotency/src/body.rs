//! The bodies of requests and responses, as they pass the layer.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use lock_tower::__private::Rest;
use lock_tower::LockedBody;
use pin_project_lite::pin_project;

use crate::recorded::taken;
use crate::{BoxError, RecordedBody};

pin_project! {
    /// The body of a request inside of [`Idempotency`](crate::Idempotency): what was read of it, or the body
    /// itself where the request has no key.
    pub struct RequestBody<B> {
        #[pin]
        state: Request<B>,
    }
}

pin_project! {
    #[project = RequestProj]
    enum Request<B> {
        Unread { #[pin] body: B },
        Read { data: Bytes },
    }
}

impl<B> RequestBody<B> {
    pub(crate) fn unread(body: B) -> Self {
        let state = Request::Unread { body };
        Self { state }
    }

    pub(crate) fn read(data: Bytes) -> Self {
        let state = Request::Read { data };
        Self { state }
    }
}

impl<B: Body> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().state.project() {
            RequestProj::Unread { body } => {
                let frame = ready!(body.poll_frame(cx));
                // For `Bytes` this is no copy.
                let whole = |mut data: B::Data| data.copy_to_bytes(data.remaining());
                Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(whole))))
            }
            RequestProj::Read { data } => Poll::Ready(taken(data)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            Request::Unread { body } => body.is_end_stream(),
            Request::Read { data } => data.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            Request::Unread { body } => body.size_hint(),
            Request::Read { data } => SizeHint::with_exact(data.len() as u64),
        }
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_read = matches!(self.state, Request::Read { .. });
        f.debug_struct("RequestBody")
            .field("is_read", &is_read)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The body of a response from [`Idempotency`](crate::Idempotency).
    pub struct ResponseBody<R> {
        #[pin]
        state: Response<R>,
    }
}

pin_project! {
    #[project = ResponseProj]
    enum Response<R> {
        // Of a request without a key.
        Passed { #[pin] body: R },
        // Of one that had the lock of its key.
        Locked { #[pin] body: LockedBody<RecordedBody<R>> },
        // An answer of ours.
        Whole { data: Bytes, rest: Rest },
    }
}

impl<R> ResponseBody<R> {
    pub(crate) fn passed(body: R) -> Self {
        let state = Response::Passed { body };
        Self { state }
    }

    pub(crate) fn locked(body: LockedBody<RecordedBody<R>>) -> Self {
        let state = Response::Locked { body };
        Self { state }
    }

    /// `rest` is what is left of the body of the request.
    pub(crate) fn whole(data: Bytes, rest: Rest) -> Self {
        let state = Response::Whole { data, rest };
        Self { state }
    }
}

impl<R> Body for ResponseBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().state.project() {
            ResponseProj::Passed { body } => {
                let frame = ready!(body.poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            ResponseProj::Locked { body } => body.poll_frame(cx),
            ResponseProj::Whole { data, .. } => Poll::Ready(taken(data)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            Response::Passed { body } => body.is_end_stream(),
            Response::Locked { body } => body.is_end_stream(),
            Response::Whole { data, .. } => data.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            Response::Passed { body } => body.size_hint(),
            Response::Locked { body } => body.size_hint(),
            Response::Whole { data, .. } => SizeHint::with_exact(data.len() as u64),
        }
    }
}

impl<R> fmt::Debug for ResponseBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            Response::Passed { .. } => "passed",
            Response::Locked { .. } => "locked",
            Response::Whole { .. } => "whole",
        };
        f.debug_struct("ResponseBody")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
