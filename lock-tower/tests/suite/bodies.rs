//! Until when a response holds its lock.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::channel::Sender;
use http_body_util::{BodyExt, Channel};
use lock_core::LockErrorKind;
use lock_core::memory::MemoryBackend;
use lock_tower::{HeldLock, HoldUntil, LockLayer};
use tower_http::compression::CompressionLayer;

use crate::support::{Locks, NAME, PROCESS, TEMPLATE, URI, post, request, send};

type Feed = Sender<Bytes, axum::Error>;

/// A route that answers with a body which is fed from outside.
fn streaming(layer: LockLayer) -> (Router, tokio::sync::mpsc::UnboundedReceiver<Feed>) {
    let (feeds, receiver) = tokio::sync::mpsc::unbounded_channel();
    let handler = async move || {
        let (feed, body) = Channel::<Bytes, axum::Error>::new(8);
        feeds.send(feed).unwrap();
        // More than comes: it does not tell whether the handler has made all.
        ([(CONTENT_LENGTH, "60")], Body::new(body))
    };
    (
        Router::new().route(PROCESS, routing::any(handler).layer(layer)),
        receiver,
    )
}

/// A body of known size that comes in two parts.
struct Parts(Vec<&'static str>);

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Poll::Ready(
            self.0
                .pop()
                .map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes())))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|part| part.len() as u64).sum())
    }
}

fn sized(layer: LockLayer) -> Router {
    let handler = async || Response::new(Body::new(Parts(vec!["two", "one"])));
    Router::new().route(PROCESS, routing::post(handler).route_layer(layer))
}

async fn frame(response: &mut Response) -> Option<Result<Frame<Bytes>, axum::Error>> {
    response.body_mut().frame().await
}

#[tokio::test]
async fn a_body_that_is_complete_is_sent_without_the_lock() {
    let locks = Locks::new();
    for (router, length) in [
        (sized(locks.layer(TEMPLATE)), "6"),
        (
            Router::new().route(
                PROCESS,
                routing::post(async || "done").route_layer(locks.layer(TEMPLATE)),
            ),
            "4",
        ),
        (
            Router::new().route(
                PROCESS,
                routing::post(async || {}).route_layer(locks.layer(TEMPLATE)),
            ),
            "0",
        ),
    ] {
        let response = post(&router, URI).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(locks.store.held(), 0);
        assert!(locks.is_free(NAME).await);
        assert_eq!(response.headers()[CONTENT_LENGTH], length);
    }
}

#[tokio::test]
async fn a_body_that_is_still_made_holds_the_lock_to_its_end() {
    let locks = Locks::new();
    let (router, mut feeds) = streaming(locks.layer(TEMPLATE));
    let mut response = post(&router, URI).await;
    let mut feed = feeds.recv().await.unwrap();

    for part in ["one", "two"] {
        assert!(!locks.is_free(NAME).await);
        feed.send_data(part.into()).await.unwrap();
        let data = frame(&mut response)
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap();
        assert_eq!(data, part);
    }
    let trailers =
        HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::from_static("y"))]);
    feed.send_trailers(trailers.clone()).await.unwrap();
    assert_eq!(
        frame(&mut response)
            .await
            .unwrap()
            .unwrap()
            .into_trailers()
            .unwrap(),
        trailers
    );
    // Servers ask for nothing after them.
    assert!(locks.is_free(NAME).await);
    drop(feed);
    assert!(frame(&mut response).await.is_none());
    assert!(frame(&mut response).await.is_none());
    assert!(http_body::Body::is_end_stream(response.body()));
}

#[tokio::test]
async fn a_body_that_is_dropped_or_fails_releases() {
    let locks = Locks::new();
    let (router, mut feeds) = streaming(locks.layer(TEMPLATE));

    let response = post(&router, URI).await;
    assert!(!locks.is_free(NAME).await);
    drop(response);
    assert!(locks.is_free(NAME).await);

    feeds.recv().await.unwrap();
    let mut response = post(&router, URI).await;
    feeds.recv().await.unwrap().abort(axum::Error::new("torn"));
    let error = frame(&mut response).await.unwrap().unwrap_err();
    assert!(format!("{error:?}").contains("torn"), "{error:?}");
    assert!(locks.is_free(NAME).await);
    assert!(frame(&mut response).await.is_none());
}

#[tokio::test]
async fn a_lock_that_is_lost_cuts_the_body_off() {
    let locks = Locks::new();
    let (router, mut feeds) = streaming(locks.layer(TEMPLATE));
    let mut response = post(&router, URI).await;
    let mut feed = feeds.recv().await.unwrap();
    feed.send_data("one".into()).await.unwrap();
    frame(&mut response).await.unwrap().unwrap();

    // While it waits for a frame.
    let waiting = tokio::spawn(async move { (frame(&mut response).await, response) });
    tokio::time::sleep(Duration::from_millis(20)).await;
    locks.revoke(NAME);
    let (frame_or_error, mut response) = waiting.await.unwrap();
    let error = frame_or_error.unwrap().unwrap_err().into_inner();
    let error = error
        .downcast_ref::<lock_core::LockError>()
        .expect("a lock error");
    assert_eq!(error.kind(), LockErrorKind::Lost);
    assert!(frame(&mut response).await.is_none());
    // The body inside is gone.
    assert!(feed.send_data("two".into()).await.is_err());
}

#[tokio::test]
async fn a_body_is_not_made_on_when_its_lock_is_lost() {
    /// A body without an end, which counts how often it is asked.
    struct Endless(Arc<AtomicUsize>);
    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = axum::Error;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"more")))))
        }
    }
    let locks = Locks::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let body = Arc::clone(&asked);
    let handler = async move || Response::new(Body::new(Endless(body)));
    let route = routing::post(handler).route_layer(locks.layer(TEMPLATE));
    let mut response = post(&Router::new().route(PROCESS, route), URI).await;
    frame(&mut response).await.unwrap().unwrap();
    locks.revoke(NAME);
    assert!(frame(&mut response).await.unwrap().is_err());
    assert!(frame(&mut response).await.is_none());
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_part_that_was_made_while_the_lock_was_lost_is_not_sent() {
    /// A body that takes as long to make as the lock lasts.
    struct Slow(MemoryBackend);
    impl http_body::Body for Slow {
        type Data = Bytes;
        type Error = axum::Error;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            self.0.revoke(&NAME.parse().unwrap());
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"late")))))
        }
    }
    let locks = Locks::new();
    let store = locks.store.clone();
    let handler = async move || Response::new(Body::new(Slow(store)));
    let route = routing::post(handler).route_layer(locks.layer(TEMPLATE));
    let mut response = post(&Router::new().route(PROCESS, route), URI).await;
    assert!(frame(&mut response).await.unwrap().is_err());
    assert!(frame(&mut response).await.is_none());
}

#[tokio::test]
async fn a_body_after_a_guard_that_was_taken_holds_nothing_and_is_cut_off_by_its_loss() {
    let locks = Locks::new();
    let (guards, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let handler = async move |held: HeldLock| {
        guards.send(held.into_guard().unwrap()).unwrap();
        let (feed, body) = Channel::<Bytes, axum::Error>::new(8);
        tokio::spawn(async move {
            let _feed = feed;
            std::future::pending::<()>().await;
        });
        Body::new(body)
    };
    let route = routing::post(handler).route_layer(locks.layer(TEMPLATE));
    let router = Router::new().route(PROCESS, route);

    let response = post(&router, URI).await;
    taken.recv().await.unwrap().release().await.unwrap();
    assert!(locks.is_free(NAME).await);
    drop(response);

    let mut response = post(&router, URI).await;
    let _guard = taken.recv().await.unwrap();
    locks.revoke(NAME);
    assert!(frame(&mut response).await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn max_hold_bounds_a_body_that_nobody_reads() {
    let locks = Locks::new();
    let (router, mut feeds) = streaming(locks.layer(TEMPLATE).max_hold(Duration::from_secs(60)));
    let mut response = post(&router, URI).await;
    let _feed = feeds.recv().await.unwrap();
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(!locks.is_free(NAME).await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(locks.is_free(NAME).await);
    assert!(frame(&mut response).await.unwrap().is_err());
}

#[tokio::test]
async fn hold_until_response_releases_before_the_body() {
    let locks = Locks::new();
    let (router, mut feeds) = streaming(locks.layer(TEMPLATE).hold_until(HoldUntil::Response));
    let mut response = post(&router, URI).await;
    assert!(locks.is_free(NAME).await);
    let mut feed = feeds.recv().await.unwrap();
    feed.send_data("one".into()).await.unwrap();
    assert_eq!(
        frame(&mut response)
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap(),
        "one"
    );
}

#[tokio::test]
async fn hold_until_body_end_holds_a_body_of_known_size() {
    let locks = Locks::new();
    let router = sized(locks.layer(TEMPLATE).hold_until(HoldUntil::BodyEnd));
    let mut response = post(&router, URI).await;
    assert_eq!(response.headers()[CONTENT_LENGTH], "6");
    assert!(!locks.is_free(NAME).await);
    assert_eq!(
        frame(&mut response)
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap(),
        "one"
    );
    assert!(!locks.is_free(NAME).await);
    // The last part is sent once the lock is released.
    assert_eq!(
        frame(&mut response)
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap(),
        "two"
    );
    assert!(locks.is_free(NAME).await);

    // There is no body to hold it.
    let empty = Router::new().route(
        PROCESS,
        routing::post(async || {})
            .route_layer(locks.layer(TEMPLATE).hold_until(HoldUntil::BodyEnd)),
    );
    let response = post(&empty, URI).await;
    assert_eq!(locks.store.held(), 0);
    drop(response);
}

#[tokio::test]
async fn the_size_of_a_held_body_is_that_of_the_body_inside() {
    let locks = Locks::new();
    let router = sized(locks.layer(TEMPLATE).hold_until(HoldUntil::BodyEnd));
    let mut response = post(&router, URI).await;
    let exact = |response: &Response| http_body::Body::size_hint(response.body()).exact();
    assert_eq!(exact(&response), Some(6));
    frame(&mut response).await.unwrap().unwrap();
    assert_eq!(exact(&response), Some(3));
    frame(&mut response).await.unwrap().unwrap();
    assert_eq!(exact(&response), Some(0));
}

#[tokio::test]
async fn compression_belongs_outside() {
    async fn handler() -> impl IntoResponse {
        "text that is worth a compression, since it repeats itself. ".repeat(100)
    }
    async fn compressed(router: Router) -> Response {
        let mut request = request(Method::GET, URI);
        request
            .headers_mut()
            .insert("accept-encoding", HeaderValue::from_static("gzip"));
        let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
        assert_eq!(response.headers()["content-encoding"], "gzip");
        response
    }
    let locks = Locks::new();
    let route = routing::get(handler);

    let inside = route
        .clone()
        .route_layer(CompressionLayer::new())
        .route_layer(locks.layer(TEMPLATE));
    let response = compressed(Router::new().route(PROCESS, inside)).await;
    assert!(
        !locks.is_free(NAME).await,
        "of unknown size: held to its end"
    );
    response.into_body().collect().await.unwrap();
    assert!(locks.is_free(NAME).await);

    let outside = route
        .route_layer(locks.layer(TEMPLATE))
        .route_layer(CompressionLayer::new());
    let response = compressed(Router::new().route(PROCESS, outside)).await;
    assert!(locks.is_free(NAME).await);
    drop(response);
}

#[tokio::test]
async fn a_head_request_for_a_stream_keeps_nothing() {
    let locks = Locks::new();
    let (router, _feeds) = streaming(locks.layer(TEMPLATE));
    assert_eq!(
        send(&router, Method::HEAD, URI).await.status(),
        StatusCode::OK
    );
    assert!(locks.is_free(NAME).await);
}

#[tokio::test]
async fn a_body_that_panics_releases() {
    struct Panics;
    impl http_body::Body for Panics {
        type Data = Bytes;
        type Error = axum::Error;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            panic!("on purpose")
        }
    }
    let locks = Locks::new();
    let handler = async || Response::new(Body::new(Panics));
    let router = Router::new().route(
        PROCESS,
        routing::get(handler).route_layer(locks.layer(TEMPLATE)),
    );
    let mut response = send(&router, Method::GET, URI).await;
    assert!(!locks.is_free(NAME).await);
    let poll = std::panic::AssertUnwindSafe(|| {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        http_body::Body::poll_frame(Pin::new(response.body_mut()), &mut cx).is_ready()
    });
    assert!(std::panic::catch_unwind(poll).is_err());
    assert!(locks.is_free(NAME).await);
    // What was sent is not the whole.
    assert!(!http_body::Body::is_end_stream(response.body()));
    assert!(frame(&mut response).await.unwrap().is_err());
    assert!(frame(&mut response).await.is_none());
}
