//! The service that a layer makes: finds the key, the caller and the payload of a request, and replays
//! what is stored; else the request goes on to the lock of its key.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body;
use lock_core::LockError;
use lock_tower::__private::{Rest, body_problem, body_too_large};
use lock_tower::{HeldLock, Lock};
use tower_service::Service;

use crate::answer::{self, Wrong};
use crate::header;
use crate::key::{self, Asking, Route};
use crate::settings::Settings;
use crate::upload::{self, Refused};
use crate::{
    BoxError, Fingerprint, IdempotencyKey, Record, RecordKey, Recording, RequestBody, ResponseBody,
};

/// Replays stored responses to requests with an idempotency key, and runs the others once; from
/// [`IdempotencyLayer`](crate::IdempotencyLayer).
///
/// It is as ready as the service inside.
#[derive(Clone, Debug)]
pub struct Idempotency<S> {
    lock: Lock<Recording<S>>,
    settings: Arc<Settings>,
}

/// The future of a response.
type ResponseFuture<R, E> = Pin<Box<dyn Future<Output = Result<Response<R>, E>> + Send>>;

/// What the head of a request says of its key.
enum Head {
    Unkeyed,
    Refused(Response<Bytes>),
    Keyed {
        key: String,
        record: RecordKey,
        route: Route,
    },
}

impl<S> Idempotency<S> {
    pub(crate) fn new(lock: Lock<Recording<S>>, settings: Arc<Settings>) -> Self {
        Self { lock, settings }
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        self.lock.get_ref().get_ref()
    }

    /// The service inside.
    pub fn get_mut(&mut self) -> &mut S {
        self.lock.get_mut().get_mut()
    }

    /// The service inside, by value.
    pub fn into_inner(self) -> S {
        self.lock.into_inner().into_inner()
    }
}

impl Head {
    /// `outside` is the key of a layer around this one.
    fn of(parts: &Parts, outside: Option<&IdempotencyKey>, settings: &Settings) -> Self {
        // The body of CONNECT, by which HTTP/2 opens a WebSocket, has no end.
        if parts.method.is_safe() || parts.method == Method::CONNECT {
            return Self::Unkeyed;
        }
        let route = Route::of(parts);
        let key = match header::key(&parts.headers, &settings.header) {
            Ok(Some(key)) => key,
            Ok(None) if settings.is_required => {
                let missing = Wrong::KeyMissing(&settings.header);
                return Self::Refused(missing.to_response(&route));
            }
            Ok(None) => return Self::Unkeyed,
            Err(header::BadKey) => {
                let invalid = Wrong::KeyInvalid(&settings.header);
                return Self::Refused(invalid.to_response(&route));
            }
        };
        let scope = match (settings.scope)(parts) {
            // An empty one is that of every caller who is not known.
            Ok(Some(scope)) if !scope.is_empty() => scope,
            Ok(_) => return Self::Refused(Wrong::ScopeMissing.to_response(&route)),
            Err(error) => return Self::Refused(answer::scope_failed(error, &route)),
        };
        if settings.keeps_nothing() {
            return Self::Refused(answer::mistaken(LockError::misconfigured(
                "the `lifetime` of idempotency keys is less than a millisecond, so that no answer would be \
                 replayed; give it hours",
            )));
        }
        let record = RecordKey::new(&scope, route.pattern().unwrap_or_default(), &key);
        // It would wait for the lock that the request has.
        if outside.is_some_and(|outside| *outside.record() == record) {
            return Self::Refused(answer::mistaken(LockError::misconfigured(
                "two layers of idempotency keys with the same scope stand around one handler; take one away",
            )));
        }
        Self::Keyed { key, record, route }
    }
}

impl<S, B, R> Service<Request<B>> for Idempotency<S>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError> + Send,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<ResponseBody<R>, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.get_mut().poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        // A handler that asks for its key must not take that of a layer outside for it.
        let outside = parts.extensions.remove::<IdempotencyKey>();
        match Head::of(&parts, outside.as_ref(), &self.settings) {
            Head::Unkeyed => {
                let request = Request::from_parts(parts, RequestBody::unread(body));
                let response = self.get_mut().call(request);
                Box::pin(async move { Ok(response.await?.map(ResponseBody::passed)) })
            }
            Head::Refused(mut response) => {
                let rest = Rest::of(body, &parts, &mut response);
                Box::pin(async move { Ok(response.map(|data| ResponseBody::whole(data, rest))) })
            }
            Head::Keyed { key, record, route } => {
                let settings = Arc::clone(&self.settings);
                // The clone may not be ready: what is kept for the call is the one that was asked.
                let clone = self.lock.clone();
                let mut ready = mem::replace(&mut self.lock, clone);
                Box::pin(async move {
                    let data = match upload::read(body, settings.request_limit).await {
                        Ok(data) => data,
                        Err(refused) => return Ok(no_body(refused, &parts)),
                    };
                    let fingerprint =
                        Fingerprint::new(&record, &parts.method, key::uri(&parts), &data);
                    let asking = Arc::new(Asking {
                        key,
                        record,
                        fingerprint,
                        route,
                        held_outside: parts.extensions.remove::<HeldLock>(),
                        settings,
                    });
                    if let Some(response) = asking.answer().await {
                        return Ok(response.map(|data| ResponseBody::whole(data, Rest::NONE)));
                    }
                    parts.extensions.insert(asking);
                    let request = Request::from_parts(parts, RequestBody::read(data));
                    Ok(ready.call(request).await?.map(ResponseBody::locked))
                })
            }
        }
    }
}

/// The answer to a request whose body was not read to its end.
fn no_body<B, R>(refused: Refused<B>, parts: &Parts) -> Response<ResponseBody<R>>
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    let (response, rest) = match refused {
        Refused::TooLarge(body) => {
            let mut response = body_too_large();
            let rest = Rest::of(body, parts, &mut response);
            (response, rest)
        }
        Refused::Broken(error) => (body_problem(&*error), Rest::NONE),
    };
    response.map(|data| ResponseBody::whole(data, rest))
}

impl Asking {
    /// The answer that needs no handler: a replay, a refusal, or that the store is down.
    pub(crate) async fn answer(&self) -> Option<Response<Bytes>> {
        match self.settings.find(&self.record).await {
            Ok(None) => None,
            Ok(Some(record)) => Some(self.replay(&record)),
            Err(error) => Some(answer::store_failed(&error, &self.route)),
        }
    }

    /// The stored response, to the same request alone.
    pub(crate) fn replay(&self, record: &Record) -> Response<Bytes> {
        if *record.fingerprint() == self.fingerprint {
            record.to_response()
        } else {
            Wrong::Reused.to_response(&self.route)
        }
    }
}
