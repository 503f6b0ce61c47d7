//! A request's body of which a part was read already.

use std::collections::VecDeque;
use std::fmt;
use std::mem::size_of;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};

type Polled<B> = Poll<Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>>;

/// The body of a request that has waited for its lock: gives what was read while it waited, and then
/// the rest.
///
/// Handlers meet it inside the type of body that they know: see
/// [`LockLayer::rebuild_body`](crate::LockLayer::rebuild_body).
pub struct ReplayedBody<B: Body> {
    kept: VecDeque<Frame<B::Data>>,
    /// `None` once it has ended.
    rest: Option<B>,
}

impl<B: Body + Unpin> ReplayedBody<B> {
    pub(crate) fn new(body: B) -> Self {
        Self {
            kept: VecDeque::new(),
            rest: Some(body),
        }
    }

    /// Reads until `room`, in bytes of memory, is used up, or the body is not ready, has ended or has
    /// failed.
    pub(crate) fn read_ahead(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut usize,
    ) -> Result<(), B::Error> {
        while *room > 0 {
            let Poll::Ready(Some(frame)) = self.poll_rest(cx) else {
                break;
            };
            let frame = frame?;
            // What a frame takes beside its data counts too: clients choose how small frames are.
            let size = size_of::<Frame<B::Data>>() + frame.data_ref().map_or(0, Buf::remaining);
            *room = room.saturating_sub(size);
            self.kept.push_back(frame);
        }
        Ok(())
    }

    /// Reads on and throws away, up to `room` bytes; completes at the end of the body.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>, room: &mut usize) -> Poll<()> {
        while *room > 0 {
            match ready!(Pin::new(&mut *self).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let size = frame.data_ref().map_or(0, Buf::remaining);
                    *room = room.saturating_sub(size.max(1));
                }
                Some(Err(_)) | None => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    pub(crate) fn forget_kept(&mut self) {
        self.kept = VecDeque::new();
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Polled<B> {
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(rest).poll_frame(cx));
        if frame.is_none() {
            self.rest = None;
        }
        Poll::Ready(frame)
    }

    /// The body itself, when nothing was read of it.
    pub(crate) fn into_unread(mut self) -> Result<B, Self> {
        match self.rest.take() {
            Some(body) if self.kept.is_empty() => Ok(body),
            rest => Err(Self { rest, ..self }),
        }
    }
}

impl<B: Body + Unpin> Body for ReplayedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.kept.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.poll_rest(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_empty() && self.rest.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let data = self.kept.iter().filter_map(Frame::data_ref);
        let kept: u64 = data.map(|data| data.remaining() as u64).sum();
        let rest = self
            .rest
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), B::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
            hint.set_upper(upper);
        }
        hint
    }
}

// Nothing in it is pinned: `B` is asked to be `Unpin` where it is polled.
impl<B: Body> Unpin for ReplayedBody<B> {}

impl<B: Body> fmt::Debug for ReplayedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayedBody")
            .field("kept_frames", &self.kept.len())
            .field("has_ended", &self.rest.is_none())
            .finish_non_exhaustive()
    }
}
