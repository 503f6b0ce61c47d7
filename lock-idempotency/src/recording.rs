//! The handler under the lock of its key: looks again, runs, stores.

use std::error::Error;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use lock_core::__private::Repeated;
use lock_core::LockErrorKind;
use lock_tower::{HeldLock, LockRejection};
use tower_service::Service;

use crate::answer::out_of_place;
use crate::key::Asking;
use crate::{BoxError, IdempotencyKey, Record, RecordKey, RecordedBody};

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
        let data = match RecordedBody::read(body, limit).await {
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
        let first = self.settings.find(&self.record).await.ok().flatten();
        // One that is not known is another's: ours is there.
        if first.as_ref() == Some(record) {
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
        let first = first.filter(|first| *first.fingerprint() == self.fingerprint)?;
        Some(first.to_response())
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
