//! A handler that runs under its lock.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body::Body;
use lock_core::__private::Repeated;
use lock_core::Lost;
use pin_project_lite::pin_project;

use crate::held::Owner;
use crate::locked::poll_locked;
use crate::refusal::Rest;
use crate::rejection::Asked;
use crate::rule::Settings;
use crate::settling::Settling;
use crate::{BoxError, LockedBody};

pin_project! {
    /// The future of a handler, and the guard of its lock.
    ///
    /// Whenever it ends, by its end, a loss, a drop or a panic, the handler's future is gone before
    /// the lock is released. The order of the fields is that of their drop.
    #[project = RunningProj]
    pub(crate) struct Running<F, R, E> {
        // `None` once it has ended.
        #[pin]
        handler: Option<F>,
        // `None` until the handler has waited for the first time.
        lost: Option<Lost>,
        // `None` while the handler is polled, and once it has ended.
        owner: Option<Owner>,
        settings: Arc<Settings>,
        asked: Option<Asked>,
        // What is sent once the lock is released.
        answer: Option<Result<Response<LockedBody<R>>, E>>,
        settling: Option<Settling>,
    }
}

impl<F, R, E> Running<F, R, E> {
    pub(crate) fn new(handler: F, owner: Owner, settings: Arc<Settings>, asked: Asked) -> Self {
        Self {
            handler: Some(handler),
            lost: None,
            owner: Some(owner),
            settings,
            asked: Some(asked),
            answer: None,
            settling: None,
        }
    }

    /// Whether the handler has not ended.
    pub(crate) fn is_at_work(&self) -> bool {
        self.handler.is_some()
    }

    /// What is locked, for logs.
    pub(crate) fn lock(&self) -> &str {
        self.owner.as_ref().map_or("", Owner::lock)
    }
}

impl<F, R, E> RunningProj<'_, F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    /// Sends the response without the lock, once it is released, or with it, in its body.
    fn respond(&mut self, response: Response<R>, owner: Owner) -> Response<LockedBody<R>> {
        if is_upgrade(self.method(), response.status()) && !owner.is_taken() {
            static UNLOCKED: Repeated = Repeated::new();
            let lock = owner.lock();
            UNLOCKED.happened(lock, |times| {
                tracing::warn!(
                    lock,
                    times,
                    "a connection was upgraded, which ends its lock; take the lock along with \
                     `HeldLock::into_guard`"
                );
            });
        }
        if self.settings.hold_until.is_over_with(response.body()) {
            *self.settling = Some(Settling::new(owner));
            response.map(LockedBody::free)
        } else {
            let is_grpc = self.asked.as_ref().is_some_and(|asked| asked.is_grpc);
            let length = self.known_length(response.headers());
            response.map(|body| LockedBody::held(body, owner, is_grpc, length))
        }
    }

    /// How long a body is whose end no client of HTTP/1 waits for, nor a server asks for: it has all by then. In HTTP/2
    /// trailers can follow.
    fn known_length(&self, headers: &HeaderMap) -> Option<u64> {
        let asked = self.asked.as_ref()?;
        let length = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
        (asked.version <= Version::HTTP_11).then_some(length)
    }

    fn method(&self) -> Option<&Method> {
        self.asked.as_ref().map(|asked| &asked.method)
    }
}

/// Whether the connection goes on in another protocol after this response.
fn is_upgrade(method: Option<&Method>, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS
        || method == Some(&Method::CONNECT) && status.is_success()
}

impl<F, R, E> Future for Running<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<LockedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.handler.is_some() {
            let handler = this.handler.as_mut();
            let ended = ready!(poll_locked(handler, this.owner, this.lost, cx, F::poll));
            // What the handler still has goes before its lock does.
            this.handler.set(None);
            *this.lost = None;
            let answer = match ended {
                Ok((Ok(response), owner)) => Ok(this.respond(response, owner)),
                Ok((Err(error), owner)) => {
                    *this.settling = Some(Settling::new(owner));
                    Err(error)
                }
                Err(lost) => {
                    let asked = this.asked.take().expect("a loss is the end");
                    Ok(this
                        .settings
                        .reject(lost, asked)
                        .map(|data| LockedBody::whole(data, Rest::NONE)))
                }
            };
            *this.answer = Some(answer);
        }
        if let Some(settling) = this.settling {
            ready!(Pin::new(settling).poll(cx));
        }
        Poll::Ready(
            this.answer
                .take()
                .expect("a future is not polled after its end"),
        )
    }
}
