//! The body of a request before a handler has it: read ahead while the request waits, read to its
//! end when the request is refused.
//!
//! A server of HTTP/1.1 reads a connection no further than the body that it is asked for, and so does
//! not see that the client has left while that is unread. Nor does it send an answer in peace: it
//! closes the connection over what is unread, and the reset can overtake the answer.
//!
//! A body that was read in part is another body. Which type of body can be made of one is known for
//! axum's, and is added for others by `rebuild_body`.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use http::{Request, Version};
use http_body::{Body, SizeHint};

use crate::BoxError;
use crate::replay::ReplayedBody;

/// What is read ahead of a body where the layer says nothing else, in bytes of memory.
const READ_AHEAD: usize = 128 * 1024;

/// How the bodies of requests are read.
#[derive(Clone)]
pub(crate) struct Uploads {
    pub(crate) read_ahead: usize,
    /// A [`Reader`] for each type of body.
    readers: Vec<Arc<dyn Any + Send + Sync>>,
}

/// What is known of a type of body.
struct Reader<B> {
    has_ended: fn(&B) -> bool,
    read: Box<dyn Fn(B) -> Box<dyn Reading<B>> + Send + Sync>,
}

/// A body that is read by us.
pub(crate) trait Reading<B>: Send {
    /// Reads ahead, and keeps what was read; an error says that no handler will get the whole.
    fn read_ahead(&mut self, cx: &mut Context<'_>, room: &mut usize) -> Result<(), BoxError>;

    /// Throws away what was kept. What is left to read: `None` when that is nothing.
    fn rest(&mut self) -> Option<SizeHint>;

    /// Reads on and throws away, up to `room` bytes; completes at the end of the body.
    fn poll_drain(&mut self, cx: &mut Context<'_>, room: &mut usize) -> Poll<()>;

    /// The body for the handler.
    fn into_body(self: Box<Self>) -> B;
}

impl Uploads {
    pub(crate) fn new() -> Self {
        #[cfg_attr(not(feature = "axum"), expect(unused_mut, reason = "axum's is known"))]
        let mut uploads = Self {
            read_ahead: READ_AHEAD,
            readers: Vec::new(),
        };
        #[cfg(feature = "axum")]
        uploads.add(axum::body::Body::new::<ReplayedBody<axum::body::Body>>);
        uploads
    }

    /// A later one for the same type replaces an earlier one.
    pub(crate) fn add<B, F>(&mut self, rebuild: F)
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
        F: Fn(ReplayedBody<B>) -> B + Send + Sync + 'static,
    {
        let rebuild = Arc::new(rebuild);
        let read = move |body: B| -> Box<dyn Reading<B>> {
            Box::new(Read {
                body: ReplayedBody::new(body),
                rebuild: Arc::clone(&rebuild),
            })
        };
        let reader = Reader {
            has_ended: B::is_end_stream,
            read: Box::new(read),
        };
        self.readers.insert(0, Arc::new(reader));
    }

    /// What of a request can be read by us: bodies of HTTP/1.1 of a known type that have not ended.
    /// HTTP/2 tells of each stream that its client has reset, and reads no further than we do.
    fn read<B: 'static>(&self, parts: &Parts, body: B) -> Result<Box<dyn Reading<B>>, B> {
        if parts.version > Version::HTTP_11 {
            return Err(body);
        }
        let mut readers = self.readers.iter();
        match readers.find_map(|reader| reader.downcast_ref::<Reader<B>>()) {
            Some(reader) if !(reader.has_ended)(&body) => Ok((reader.read)(body)),
            _ => Err(body),
        }
    }
}

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads")
            .field("read_ahead", &self.read_ahead)
            .finish_non_exhaustive()
    }
}

struct Read<B: Body, F> {
    body: ReplayedBody<B>,
    rebuild: Arc<F>,
}

impl<B, F> Reading<B> for Read<B, F>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    F: Fn(ReplayedBody<B>) -> B + Send + Sync,
{
    fn read_ahead(&mut self, cx: &mut Context<'_>, room: &mut usize) -> Result<(), BoxError> {
        self.body.read_ahead(cx, room).map_err(Into::into)
    }

    fn rest(&mut self) -> Option<SizeHint> {
        self.body.forget_kept();
        (!self.body.is_end_stream()).then(|| self.body.size_hint())
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, room: &mut usize) -> Poll<()> {
        self.body.poll_drain(cx, room)
    }

    fn into_body(self: Box<Self>) -> B {
        let Self { body, rebuild } = *self;
        body.into_unread().unwrap_or_else(|read| rebuild(read))
    }
}

/// The body of a request that waits.
pub(crate) enum Upload<B> {
    /// Not read by us.
    Unread(B),
    Ahead {
        reading: Box<dyn Reading<B>>,
        room: usize,
    },
}

impl<B: 'static> Upload<B> {
    /// Begins to read ahead, where that can be done.
    pub(crate) fn ahead(self, parts: &Parts, uploads: &Uploads) -> Self {
        match self {
            Self::Unread(body) if uploads.read_ahead > 0 => match uploads.read(parts, body) {
                Ok(reading) => Self::Ahead {
                    reading,
                    room: uploads.read_ahead,
                },
                Err(body) => Self::Unread(body),
            },
            upload => upload,
        }
    }
}

impl<B> Upload<B> {
    /// The body, read by us, if it is not at its end and of a known type.
    pub(crate) fn into_reading(
        self,
        parts: &Parts,
        uploads: &Uploads,
    ) -> Option<Box<dyn Reading<B>>>
    where
        B: 'static,
    {
        match self {
            Self::Unread(body) => uploads.read(parts, body).ok(),
            Self::Ahead { reading, .. } => Some(reading),
        }
    }

    /// Reads ahead; an error says that the client has left or sends what is no body.
    pub(crate) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Result<(), BoxError> {
        match self {
            Self::Unread(_) => Ok(()),
            Self::Ahead { reading, room } => reading.read_ahead(cx, room),
        }
    }

    pub(crate) fn into_request(self, parts: Parts) -> Request<B> {
        let body = match self {
            Self::Unread(body) => body,
            Self::Ahead { reading, .. } => reading.into_body(),
        };
        Request::from_parts(parts, body)
    }
}
