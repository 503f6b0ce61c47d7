//! The body of a response, which can hold the lock to its end.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use lock_core::Lost;
use pin_project_lite::pin_project;

use crate::BoxError;
use crate::held::Owner;
use crate::locked::poll_locked;
use crate::refusal::Rest;
use crate::rejection::grpc_trailers;
use crate::settling::Settling;

pin_project! {
    /// The body of a response from [`Lock`](crate::Lock).
    ///
    /// One that is still being made when the handler returns holds the lock to its end, its trailers
    /// included: its last frame is sent once the lock is released. Dropped before, it releases as
    /// well. When the lock is lost meanwhile, the body is cut off with an error, or ends with a status
    /// of gRPC where that was asked for.
    pub struct LockedBody<B> {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B> {
        // Nothing is locked for it.
        Free {
            #[pin]
            body: B,
        },
        Held {
            #[pin]
            held: Held<B>,
        },
        // An answer of ours.
        Whole {
            data: Bytes,
            rest: Rest,
        },
    }
}

pin_project! {
    // The order of the fields is that of their drop.
    #[project = HeldProj]
    struct Held<B> {
        // `None` once it has ended.
        #[pin]
        body: Option<B>,
        lost: Option<Lost>,
        // `None` while the body is polled, and once it has ended.
        owner: Option<Owner>,
        // Whether its end, or its error, is still to come.
        is_open: bool,
        // What is sent once the lock is released.
        last: Option<Frame<Bytes>>,
        settling: Option<Settling>,
        // Whether a loss is said by trailers.
        is_grpc: bool,
        // What is to come of a body whose client knows its length, and does not wait for its end.
        left: Option<u64>,
    }
}

impl<B> LockedBody<B> {
    pub(crate) fn free(body: B) -> Self {
        let state = State::Free { body };
        Self { state }
    }

    pub(crate) fn held(body: B, owner: Owner, is_grpc: bool, length: Option<u64>) -> Self {
        let held = Held {
            body: Some(body),
            lost: None,
            owner: Some(owner),
            is_open: true,
            last: None,
            settling: None,
            is_grpc,
            left: length,
        };
        let state = State::Held { held };
        Self { state }
    }

    pub(crate) fn whole(data: Bytes, rest: Rest) -> Self {
        let state = State::Whole { data, rest };
        Self { state }
    }
}

impl<B> HeldProj<'_, B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.body.is_some() {
            let body = self.body.as_mut();
            let polled = ready!(poll_locked(body, self.owner, self.lost, cx, B::poll_frame));
            let (frame, owner) = match polled {
                Ok((frame, owner)) => (frame.transpose().map_err(Into::into), Some(owner)),
                Err(lost) if *self.is_grpc => {
                    (Ok(Some(Frame::trailers(grpc_trailers(lost)))), None)
                }
                Err(lost) => (Err(lost.into()), None),
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    self.end();
                    return Poll::Ready(Some(Err(error)));
                }
            };
            let is_complete = self.is_complete_with(frame.as_ref());
            let body = self.body.as_ref().as_pin_ref();
            // Nothing comes after trailers: servers ask for no more.
            let is_last = is_complete
                || frame.as_ref().is_none_or(Frame::is_trailers)
                || body.is_none_or(|body| body.is_end_stream());
            if !is_last {
                *self.owner = owner;
                return Poll::Ready(frame.map(Ok));
            }
            self.end();
            *self.last = frame;
            *self.settling = owner.map(Settling::new);
        } else if mem::take(self.is_open) {
            // Not the end, which it would look like to who caught the panic.
            return Poll::Ready(Some(Err("the body of the response panicked".into())));
        }
        if let Some(settling) = self.settling {
            ready!(Pin::new(settling).poll(cx));
            *self.settling = None;
        }
        Poll::Ready(self.last.take().map(Ok))
    }

    /// Whether a client that knows the length of the body has all of it with this frame.
    fn is_complete_with(&mut self, frame: Option<&Frame<Bytes>>) -> bool {
        let data = frame.and_then(Frame::data_ref);
        let (Some(left), Some(data)) = (self.left.as_mut(), data) else {
            return false;
        };
        *left = left.saturating_sub(size(data));
        *left == 0
    }

    /// What is left of the body goes before its lock does.
    fn end(&mut self) {
        self.body.set(None);
        *self.lost = None;
        *self.is_open = false;
    }
}

impl<B> Body for LockedBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().state.project() {
            StateProj::Free { body } => {
                let frame = ready!(body.poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            StateProj::Held { held } => held.project().poll_frame(cx),
            StateProj::Whole { data, .. } => {
                let data = mem::take(data);
                Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Free { body } => body.is_end_stream(),
            State::Held { held } => match &held.body {
                Some(body) => body.is_end_stream(),
                None => !held.is_open && held.last.is_none() && held.settling.is_none(),
            },
            State::Whole { data, .. } => data.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Free { body } => body.size_hint(),
            State::Held { held } => match (&held.body, &held.last) {
                (Some(body), _) => body.size_hint(),
                (None, Some(last)) => SizeHint::with_exact(last.data_ref().map_or(0, size)),
                (None, None) => SizeHint::with_exact(0),
            },
            State::Whole { data, .. } => SizeHint::with_exact(size(data)),
        }
    }
}

fn size(data: &Bytes) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

impl<B> fmt::Debug for LockedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_locked = matches!(&self.state, State::Held { held } if held.owner.is_some());
        f.debug_struct("LockedBody")
            .field("locked", &is_locked)
            .finish_non_exhaustive()
    }
}
