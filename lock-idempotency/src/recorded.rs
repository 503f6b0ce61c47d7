//! The body of a response that is to be stored: read to its end, and given whole or as it was.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use crate::BoxError;

/// The body of a response that was stored, or could not be.
pub struct RecordedBody<R> {
    state: State<R>,
}

type Frames = VecDeque<Result<Frame<Bytes>, BoxError>>;

enum State<R> {
    Whole(Bytes),
    Unread(Pin<Box<R>>),
    /// What was read, and the rest.
    Begun {
        frames: Frames,
        body: Pin<Box<R>>,
    },
}

impl<R> RecordedBody<R> {
    pub(crate) fn whole(data: Bytes) -> Self {
        Self {
            state: State::Whole(data),
        }
    }

    pub(crate) fn unread(body: R) -> Self {
        Self {
            state: State::Unread(Box::pin(body)),
        }
    }
}

impl<R> RecordedBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    /// Reads the whole body; or, when it is larger than `limit`, has trailers or breaks off, returns one that gives what
    /// was read and then the rest.
    pub(crate) async fn read(body: R, limit: usize) -> Result<Bytes, Self> {
        let mut body = Box::pin(body);
        let mut frames = Frames::new();
        let mut size = 0;
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let data = frame
                .as_ref()
                .ok()
                .and_then(Frame::data_ref)
                .map(Bytes::len);
            size += data.unwrap_or(0);
            frames.push_back(frame.map_err(Into::into));
            if data.is_none() || size > limit {
                let state = State::Begun { frames, body };
                return Err(Self { state });
            }
        }
        let frames = frames.into_iter().flatten();
        let mut pieces = frames.filter_map(|frame| frame.into_data().ok());
        let first = pieces.next().unwrap_or_default();
        if first.len() == size {
            return Ok(first);
        }
        let mut whole = BytesMut::with_capacity(size);
        whole.put(first);
        pieces.for_each(|piece| whole.put(piece));
        Ok(whole.freeze())
    }
}

impl<R> Body for RecordedBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let body = match &mut self.state {
            State::Whole(data) => return Poll::Ready(taken(data)),
            State::Begun { frames, .. } if !frames.is_empty() => {
                return Poll::Ready(frames.pop_front());
            }
            State::Unread(body) | State::Begun { body, .. } => body,
        };
        let frame = ready!(body.as_mut().poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Whole(data) => data.is_empty(),
            State::Unread(body) => body.is_end_stream(),
            State::Begun { frames, body } => frames.is_empty() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Whole(data) => SizeHint::with_exact(data.len() as u64),
            State::Unread(body) => body.size_hint(),
            // Nothing of a known size is read in part, but where it breaks off.
            State::Begun { .. } => SizeHint::default(),
        }
    }
}

// Nothing in it is pinned but in its box.
impl<R> Unpin for RecordedBody<R> {}

impl<R> fmt::Debug for RecordedBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedBody")
            .field("is_whole", &matches!(self.state, State::Whole(_)))
            .finish_non_exhaustive()
    }
}

/// The one frame of a body that is there as a whole.
pub(crate) fn taken<E>(data: &mut Bytes) -> Option<Result<Frame<Bytes>, E>> {
    let data = mem::take(data);
    (!data.is_empty()).then(|| Ok(Frame::data(data)))
}
