//! The service that a layer makes.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::runtime::Handle;
use tower_service::Service;

use crate::future::{ResponseFuture, Start};
use crate::rejection::Asked;
use crate::rule::{Choice, Rules, Settings};
use crate::upload::Upload;
use crate::{BoxError, HeldLock, LockedBody};

/// Runs requests under a lock; from [`LockLayer`](crate::LockLayer) or `RouteLocks`.
///
/// It is as ready as the service inside: the lock is acquired after that, for each request.
#[derive(Clone, Debug)]
pub struct Lock<S> {
    inner: S,
    rules: Arc<dyn Rules>,
    settings: Arc<Settings>,
}

impl<S> Lock<S> {
    pub(crate) fn new(inner: S, rules: Arc<dyn Rules>, settings: Arc<Settings>) -> Self {
        Self {
            inner,
            rules,
            settings,
        }
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

impl<S, B, R> Service<Request<B>> for Lock<S>
where
    B: 'static,
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<LockedBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // Never the lock: who is ready need not call.
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let rule = match self.rules.choose(&parts) {
            Choice::Lock(rule) => rule,
            Choice::Pass => {
                // A handler that asks for its lock must not take that of a layer outside for it.
                parts.extensions.remove::<HeldLock>();
                return ResponseFuture::passing(self.inner.call(Request::from_parts(parts, body)));
            }
            Choice::Mistake(error) => {
                let asked = Asked::new(&parts, None, &self.settings);
                let body = Upload::Unread(body);
                return ResponseFuture::refused(self.settings.refuse(error, asked, &parts, body));
            }
        };
        let asked = Asked::new(&parts, Some(rule), &self.settings);
        let name = rule.naming.name(&mut parts);
        let policy = rule.policy;
        let start = Start {
            parts,
            body: Upload::Unread(body),
            settings: Arc::clone(&self.settings),
            asked,
        };
        let mut acquire = match name.and_then(|name| self.settings.locks.lock(name)) {
            Ok(lock) => lock.acquire_owned(policy),
            Err(error) => return ResponseFuture::refused(start.refuse(error)),
        };

        // A lock that is free is acquired here, which saves the clone of the service. A request that has to
        // wait needs timers, and so a runtime, and the waker of the task that polls the future.
        if Handle::try_current().is_ok() {
            let mut cx = Context::from_waker(Waker::noop());
            match Pin::new(&mut acquire).poll(&mut cx) {
                Poll::Ready(Ok(guard)) => return start.run(guard, &mut self.inner),
                Poll::Ready(Err(error)) => return ResponseFuture::refusing(start, error),
                Poll::Pending => {}
            }
        }
        // The clone may not be ready: what is kept for the call is the one that was asked.
        let clone = self.inner.clone();
        let ready = mem::replace(&mut self.inner, clone);
        ResponseFuture::waiting(acquire, ready, start.read_ahead())
    }
}
