//! Handlers that run to their end when their client has left.
//!
//! A client that leaves drops the future of its response. The work of the handler does not stop by
//! that: its last query runs on, on another server, and the next request would meet it. So the
//! handler goes on in a task of its own, under its lock, until it ends, its lock is lost, or the
//! policy's `max_hold` is over.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use lock_core::__private::Repeated;
use tokio::runtime::Handle;
use tracing::{Instrument, Span};

use crate::running::Running;
use crate::{BoxError, LockedBody};

/// A handler that stays where it is when it is sent to a task.
type Boxed<F, R, E> = Pin<Box<Running<F, R, E>>>;

/// A running handler that is moved to a task when this is dropped.
pub(crate) struct Detachable<F, R, E> {
    /// `None` while it is polled, so that one that panics is dropped, and once it has ended.
    running: Option<Boxed<F, R, E>>,
    /// Those of the request: at the drop others can be current, or none.
    runtime: Option<Handle>,
    span: Span,
    /// Here, and not in `drop`, it is known what can be sent to a task.
    detach: fn(Boxed<F, R, E>, &Handle, Span),
}

impl<F, R, E> Detachable<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>> + Send + 'static,
    E: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    pub(crate) fn new(running: Running<F, R, E>) -> Self {
        Self {
            running: Some(Box::pin(running)),
            runtime: Handle::try_current().ok(),
            span: Span::current(),
            detach,
        }
    }
}

impl<F, R, E> Future for Detachable<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<LockedBody<R>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut running = self
            .running
            .take()
            .expect("a future is not polled after its end");
        let polled = running.as_mut().poll(cx);
        if polled.is_pending() {
            self.running = Some(running);
        }
        polled
    }
}

impl<F, R, E> Drop for Detachable<F, R, E> {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        // A release that has begun goes on by itself.
        if !running.is_at_work() {
            return;
        }
        match &self.runtime {
            Some(runtime) => (self.detach)(running, runtime, self.span.clone()),
            None => {
                static STOPPED: Repeated = Repeated::new();
                let lock = running.lock();
                STOPPED.happened(lock, |times| {
                    tracing::warn!(
                        lock,
                        times,
                        "a handler was stopped with its client: there is no tokio runtime to finish \
                         it on"
                    );
                });
            }
        }
    }
}

/// Runs a handler to its end; a runtime that has ended drops it, which releases its lock.
fn detach<F, R, E>(mut running: Boxed<F, R, E>, runtime: &Handle, span: Span)
where
    F: Future<Output = Result<Response<R>, E>> + Send + 'static,
    E: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let lock: Box<str> = running.lock().into();
    let to_the_end = async move {
        tracing::debug!(%lock, "the client has left; its handler runs on, locked");
        let poll = |cx: &mut Context<'_>| {
            let polled = catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(cx)));
            polled.map_or_else(|panic| Poll::Ready(Err(panic)), |poll| poll.map(Ok))
        };
        match poll_fn(poll).await {
            Ok(Ok(response)) => {
                let status = response.status();
                tracing::debug!(%lock, %status, "the handler of a client that had left is done");
            }
            Ok(Err(_)) => {
                static FAILED: Repeated = Repeated::new();
                FAILED.happened(&lock, |times| {
                    tracing::warn!(%lock, times, "the handler of a client that had left failed");
                });
            }
            Err(panic) => {
                let panic = text(&*panic);
                tracing::error!(%lock, panic, "the handler of a client that had left panicked");
            }
        }
    };
    runtime.spawn(to_the_end.instrument(span));
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}
