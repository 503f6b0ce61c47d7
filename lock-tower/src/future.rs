//! The future of a response: waits for the lock, then for the handler.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use lock_core::{Acquire, Holder, LockError, LockGuard};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::disconnect::Detachable;
use crate::held::Owner;
use crate::name::lock_of;
use crate::refusal::Refusal;
use crate::rejection::Asked;
use crate::rule::Settings;
use crate::running::Running;
use crate::upload::Upload;
use crate::{BoxError, LockedBody};

const OVER: &str = "a future is not polled after its end";

pin_project! {
    /// The future of [`Lock`](crate::Lock).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, R>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, R>
    where
        S: Service<Request<B>>,
    {
        Waiting {
            acquire: Acquire,
            ready: S,
            start: Option<Start<B>>,
        },
        // Dropped with this future.
        Running {
            #[pin]
            running: Running<S::Future, R, S::Error>,
        },
        // Runs on when this future is dropped.
        Detachable {
            running: Detachable<S::Future, R, S::Error>,
        },
        // Not locked.
        Passing {
            #[pin]
            future: S::Future,
        },
        // Asks who holds the lock, to tell the client.
        Asking {
            asking: Pin<Box<dyn Future<Output = Option<Holder>> + Send>>,
            refused: Option<(Start<B>, LockError)>,
        },
        Refused {
            refusal: Option<Refusal>,
        },
    }
}

/// A request before it has its lock.
pub(crate) struct Start<B> {
    pub(crate) parts: Parts,
    pub(crate) body: Upload<B>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) asked: Asked,
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    pub(crate) fn waiting(acquire: Acquire, ready: S, start: Start<B>) -> Self {
        let start = Some(start);
        Self {
            state: State::Waiting {
                acquire,
                ready,
                start,
            },
        }
    }

    pub(crate) fn passing(future: S::Future) -> Self {
        Self {
            state: State::Passing { future },
        }
    }

    pub(crate) fn refused(refusal: Refusal) -> Self {
        Self {
            state: State::refused(refusal),
        }
    }
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    B: 'static,
    S: Service<Request<B>>,
{
    /// The request was refused its lock.
    pub(crate) fn refusing(start: Start<B>, error: LockError) -> Self {
        Self {
            state: State::refusing(start, error),
        }
    }
}

impl<S, B, R> State<S, B, R>
where
    B: 'static,
    S: Service<Request<B>>,
{
    fn refusing(start: Start<B>, error: LockError) -> Self {
        if !start.settings.names_holder || !error.is_contended() {
            return Self::refused(start.refuse(error));
        }
        let (locks, template) = (&start.settings.locks, start.asked.template.as_ref());
        let named = error.lock().cloned().zip(template);
        let lock = named.and_then(|(name, template)| lock_of(template, locks, name).ok());
        let asking = async move { lock?.holder().await.ok().flatten() };
        Self::Asking {
            asking: Box::pin(asking),
            refused: Some((start, error)),
        }
    }
}

impl<S, B, R> State<S, B, R>
where
    S: Service<Request<B>>,
{
    fn refused(refusal: Refusal) -> Self {
        let refusal = Some(refusal);
        Self::Refused { refusal }
    }
}

impl<S, B, R> State<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    /// Calls the handler, under the guard.
    fn running(start: Start<B>, guard: LockGuard, ready: &mut S) -> Self {
        let Start {
            parts,
            body,
            settings,
            asked,
        } = start;
        // First of all: from here on whatever happens releases.
        let owner = Owner::new(guard);
        let mut request = body.into_request(parts);
        let outlives_client = settings.outlives_client(request.method());
        request.extensions_mut().insert(owner.held());
        let running = Running::new(ready.call(request), owner, settings, asked);
        if outlives_client {
            Self::Detachable {
                running: Detachable::new(running),
            }
        } else {
            Self::Running { running }
        }
    }
}

impl<B> Start<B> {
    pub(crate) fn run<S, R>(self, guard: LockGuard, ready: &mut S) -> ResponseFuture<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>>,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        ResponseFuture {
            state: State::running(self, guard, ready),
        }
    }

    pub(crate) fn refuse(self, error: LockError) -> Refusal
    where
        B: 'static,
    {
        let Self {
            parts,
            body,
            settings,
            asked,
        } = self;
        settings.refuse(error, asked, &parts, body)
    }

    /// For a request that has to wait for its lock.
    pub(crate) fn read_ahead(mut self) -> Self
    where
        B: 'static,
    {
        self.body = self.body.ahead(&self.parts, &self.settings.uploads);
        self
    }

    /// The body has failed while the request waited: its client has left, as a rule.
    fn give_up(self, broken: &(dyn Error + 'static)) -> Refusal {
        Refusal::of_broken_body(self.settings.reject_body(broken, &self.asked))
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    B: 'static,
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<LockedBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Waiting {
                    acquire,
                    ready,
                    start,
                } => {
                    let waiting = start.as_mut().expect(OVER);
                    let acquired = match Pin::new(acquire).poll(cx) {
                        Poll::Ready(acquired) => Ok(acquired),
                        // What is read tells that the client has left.
                        Poll::Pending => match waiting.body.poll_ahead(cx) {
                            Ok(()) => return Poll::Pending,
                            Err(broken) => Err(broken),
                        },
                    };
                    let start = start.take().expect(OVER);
                    match acquired {
                        Ok(Ok(guard)) => State::running(start, guard, ready),
                        Ok(Err(error)) => State::refusing(start, error),
                        Err(broken) => State::refused(start.give_up(&*broken)),
                    }
                }
                StateProj::Running { running } => return running.poll(cx),
                StateProj::Detachable { running } => return Pin::new(running).poll(cx),
                StateProj::Passing { future } => {
                    let answer = ready!(future.poll(cx));
                    return Poll::Ready(answer.map(|response| response.map(LockedBody::free)));
                }
                StateProj::Asking { asking, refused } => {
                    let holder = ready!(asking.as_mut().poll(cx));
                    let (mut start, error) = refused.take().expect(OVER);
                    start.asked.holder = holder;
                    State::refused(start.refuse(error))
                }
                StateProj::Refused { refusal } => {
                    let refusal = refusal.take().expect(OVER);
                    return Poll::Ready(Ok(refusal.into_response(LockedBody::whole)));
                }
            };
            state.set(next);
        }
    }
}

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting { .. } => "waiting",
            State::Running { .. } | State::Detachable { .. } => "running",
            State::Passing { .. } => "passing",
            State::Asking { .. } | State::Refused { .. } => "refused",
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
