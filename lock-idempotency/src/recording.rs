//! The handler under the lock of its key: looks again, runs, stores.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use lock_core::__private::Repeated;
use lock_core::LockErrorKind;
use lock_tower::{HeldLock, LockRejection};
use tower_service::Service;

use crate::answer::out_of_place;
use crate::key::Asking;
use crate::{BoxError, IdempotencyKey, Record, RecordKey};

/// Runs the service inside and stores its response; [`Idempotency`](crate::Idempotency) calls it under the
/// lock of the key.
///
/// The lock keeps other requests with the key out from before the second look to after the store, so that
/// none of them can miss a record that is being made. When the lock is lost, all of this is dropped.
#[derive(Clone, Debug)]
pub struct Recording<S> {
    inner: S,
}

/// The response is stored already under this key, in the transaction of its handler. A handler can return that
/// of another, which it has called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored(pub(crate) RecordKey);

impl<S> Recording<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, by value.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, R> Service<Request<B>> for Recording<S>
where
    B: Send + 'static,
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError> + Send,
{
    type Response = Response<RecordedBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let asking = request.extensions_mut().remove::<Arc<Asking>>();
        // A handler that asks for its lock means that of the resource, and fences with its token.
        let held = request.extensions_mut().remove::<HeldLock>();
        let (Some(asking), Some(held)) = (asking, held) else {
            let response = LockRejection::from(out_of_place()).to_response();
            return Box::pin(async move { Ok(response.map(RecordedBody::whole)) });
        };
        // The clone may not be ready: what is kept for the call is the one that was asked.
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            // Another request may have stored between the first look and the lock.
            if let Some(response) = asking.answer().await {
                return Ok(response.map(RecordedBody::whole));
            }
            let key = IdempotencyKey {
                asking: Arc::clone(&asking),
                held,
            };
            if let Some(held) = &asking.held_outside {
                request.extensions_mut().insert(held.clone());
            }
            request.extensions_mut().insert(key);
            let response = ready.call(request).await?;
            Ok(asking.store(response).await)
        })
    }
}

impl Asking {
    /// Stores the response, if it is one to keep.
    async fn store<R>(&self, response: Response<R>) -> Response<RecordedBody<R>>
    where
        R: Body<Data = Bytes>,
        R::Error: Into<BoxError>,
    {
        let settings = &self.settings;
        let (parts, body) = response.into_parts();
        let stored = parts.extensions.get::<Stored>();
        let is_stored = stored.is_some_and(|stored| stored.0 == self.record);
        // A lock inside refused it, or lost it.
        let is_refused = parts.extensions.get::<LockErrorKind>().is_some();
        if is_stored || is_refused || !(settings.keeps_status)(parts.status) {
            return Response::from_parts(parts, RecordedBody::unread(body));
        }
        let limit = settings.response_limit;
        if is_streamed(parts.headers.get(CONTENT_TYPE)) || body.size_hint().lower() > limit as u64 {
            self.not_stored(limit);
            return Response::from_parts(parts, RecordedBody::unread(body));
        }
        let data = match Reading::of(body, limit).await {
            Ok(data) => data,
            Err(unread) => {
                self.not_stored(limit);
                return Response::from_parts(parts, unread);
            }
        };
        let record = settings.record(self.fingerprint, &parts, data.clone());
        match settings.put(&self.record, &record).await {
            Ok(true) => {}
            Ok(false) => {
                if let Some(response) = self.stored_by_another(&record).await {
                    return response.map(RecordedBody::whole);
                }
            }
            // The work is done, and the client may know. A retry would do it again, and the lock
            // cannot be kept for it.
            Err(error) => {
                static FAILED: Repeated = Repeated::new();
                FAILED.happened(self.name(), |times| {
                    tracing::error!(
                        route = self.name(),
                        times,
                        error = &error as &dyn Error,
                        "a response could not be stored: a request that is sent again runs again"
                    );
                });
            }
        }
        Response::from_parts(parts, RecordedBody::whole(data))
    }

    /// The stored response to the same request, where it is another than this one: a holder that had lost the
    /// lock came first. One key has one answer, that which every retry gets.
    async fn stored_by_another(&self, record: &Record) -> Option<Response<Bytes>> {
        let first = self.settings.find(&self.record).await.ok().flatten()?;
        if first == *record {
            return None;
        }
        static TWICE: Repeated = Repeated::new();
        TWICE.happened(self.name(), |times| {
            tracing::error!(
                route = self.name(),
                times,
                record = %self.record,
                "a request stored its response while another with its idempotency key ran: look whether the \
                 work was done twice"
            );
        });
        // To another payload the answer would be that nothing was done.
        (*first.fingerprint() == self.fingerprint).then(|| first.to_response())
    }

    fn not_stored(&self, limit: usize) {
        static LARGE: Repeated = Repeated::new();
        LARGE.happened(self.name(), |times| {
            tracing::warn!(
                route = self.name(),
                times,
                limit,
                "a response is a stream, breaks off or is larger than `response_limit`, and was not stored: \
                 a request that is sent again runs again"
            );
        });
    }

    fn name(&self) -> &str {
        self.route.pattern().unwrap_or_default()
    }
}

/// Whether a body of this kind is sent as it is made: events come one by one, and the status of a call of gRPC
/// comes after its body or, without one, in headers that are not kept.
fn is_streamed(kind: Option<&HeaderValue>) -> bool {
    kind.is_some_and(|kind| {
        let kind = kind.as_bytes().to_ascii_lowercase();
        // The web's gRPC has its status in the body.
        let grpc = kind.strip_prefix(b"application/grpc");
        let is_grpc = grpc.is_some_and(|rest| !rest.starts_with(b"-web"));
        is_grpc || kind.starts_with(b"text/event-stream")
    })
}

type Frames = VecDeque<Result<Frame<Bytes>, BoxError>>;

/// A body that is read to be stored.
struct Reading<R> {
    body: Pin<Box<R>>,
    frames: Frames,
}

impl<R> Reading<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    /// The whole body; or, when it is larger than `limit`, has trailers or breaks off, one that gives what was
    /// read and then the rest.
    async fn of(body: R, limit: usize) -> Result<Bytes, RecordedBody<R>> {
        let mut reading = Self {
            body: Box::pin(body),
            frames: VecDeque::new(),
        };
        let mut size = 0;
        while let Some(frame) = poll_fn(|cx| reading.body.as_mut().poll_frame(cx)).await {
            let data = frame
                .as_ref()
                .ok()
                .and_then(Frame::data_ref)
                .map(Bytes::len);
            size += data.unwrap_or(0);
            reading.frames.push_back(frame.map_err(Into::into));
            if data.is_none() || size > limit {
                let Self { body, frames } = reading;
                let state = State::Begun { frames, body };
                return Err(RecordedBody { state });
            }
        }
        let mut pieces = reading.frames.into_iter().flatten();
        let mut pieces = pieces.by_ref().filter_map(|frame| frame.into_data().ok());
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

/// The one frame of a body that is there as a whole.
pub(crate) fn taken<E>(data: &mut Bytes) -> Option<Result<Frame<Bytes>, E>> {
    let data = mem::take(data);
    (!data.is_empty()).then(|| Ok(Frame::data(data)))
}

/// The body of a response that was stored, or could not be.
pub struct RecordedBody<R> {
    state: State<R>,
}

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
    fn whole(data: Bytes) -> Self {
        Self {
            state: State::Whole(data),
        }
    }

    fn unread(body: R) -> Self {
        Self {
            state: State::Unread(Box::pin(body)),
        }
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
