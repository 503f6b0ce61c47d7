//! What is read ahead of a body, and what the service gets of it, frame by frame.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Channel, Full};
use lock_tower::{LockLayer, LockedBody, ReplayedBody};
use tokio::sync::mpsc;
use tower::util::BoxCloneService;
use tower::{Layer, Service, service_fn};

use crate::support::{Locks, NAME, TEMPLATE, URI};

type Boxed = UnsyncBoxBody<Bytes, io::Error>;
type Giving<B> = BoxCloneService<Request<B>, Response<LockedBody<Full<Bytes>>>, Infallible>;

fn layer(locks: &Locks) -> LockLayer {
    let layer = locks.layer(TEMPLATE).wait(Duration::from_secs(60));
    layer
        .param("id", |_| "7")
        .rebuild_body::<Boxed, _>(Boxed::new)
}

/// A service that gives its bodies away.
fn giving<B: Send + 'static>(layer: LockLayer) -> (Giving<B>, mpsc::UnboundedReceiver<B>) {
    let (sender, bodies) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<B>| {
        sender.send(request.into_body()).ok();
        std::future::ready(Ok(Response::new(Full::<Bytes>::default())))
    });
    (BoxCloneService::new(layer.layer(service)), bodies)
}

fn request<B>(body: B) -> Request<B> {
    Request::post(URI).body(body).unwrap()
}

#[tokio::test]
async fn frames_trailers_and_sizes_are_those_of_the_body() {
    let locks = Locks::new();
    let (mut service, mut bodies) = giving::<Boxed>(layer(&locks));
    let held = locks.take(NAME).await;
    let (mut feed, body) = Channel::<Bytes, io::Error>::new(8);
    let mut waiting = service.call(request(Boxed::new(body)));
    for part in ["one", "two"] {
        feed.send_data(part.into()).await.unwrap();
        assert!((&mut waiting).now_or_never().is_none());
    }
    drop(held);
    assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
    let mut body = bodies.recv().await.unwrap();
    assert_eq!(body.size_hint().lower(), 6);
    assert_eq!(body.size_hint().exact(), None);
    assert!(!body.is_end_stream());
    for part in ["one", "two"] {
        assert_eq!(
            body.frame().await.unwrap().unwrap().into_data().unwrap(),
            part
        );
    }
    feed.send_data("three".into()).await.unwrap();
    let trailers =
        HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::from_static("y"))]);
    feed.send_trailers(trailers.clone()).await.unwrap();
    drop(feed);
    let rest = body.collect().await.unwrap();
    assert_eq!(rest.trailers(), Some(&trailers));
    assert_eq!(rest.to_bytes(), "three");
}

#[tokio::test]
async fn a_body_that_ended_while_its_request_waited_is_whole() {
    let locks = Locks::new();
    let (mut service, mut bodies) = giving::<Boxed>(layer(&locks));
    let held = locks.take(NAME).await;
    let (mut feed, body) = Channel::<Bytes, io::Error>::new(8);
    let mut waiting = service.call(request(Boxed::new(body)));
    feed.send_data("one".into()).await.unwrap();
    let trailers =
        HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::from_static("y"))]);
    feed.send_trailers(trailers.clone()).await.unwrap();
    drop(feed);
    assert!((&mut waiting).now_or_never().is_none());
    drop(held);
    waiting.await.unwrap();
    let body = bodies.recv().await.unwrap();
    assert_eq!(body.size_hint().exact(), Some(3));
    let whole = body.collect().await.unwrap();
    assert_eq!(whole.trailers(), Some(&trailers));
    assert_eq!(whole.to_bytes(), "one");
}

/// A body of known size that counts how often it is read.
struct Counted {
    left: u64,
    reads: Arc<AtomicUsize>,
}

const FRAME: u64 = 1_000;

impl Body for Counted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= FRAME;
        let data = Bytes::from_static(&[b'x'; FRAME as usize]);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Reads of a body of 100 frames before its request has its lock, and its size then.
async fn reads(
    configure: impl FnOnce(LockLayer) -> LockLayer,
    version: Version,
    is_free: bool,
) -> usize {
    let locks = Locks::new();
    let (mut service, mut bodies) = giving::<Boxed>(configure(layer(&locks)));
    let reads = Arc::<AtomicUsize>::default();
    let body = Counted {
        left: 100 * FRAME,
        reads: Arc::clone(&reads),
    };
    let mut request = request(Boxed::new(body));
    *request.version_mut() = version;
    let held = locks.take(NAME).await;
    let held = (!is_free).then_some(held);
    let mut waiting = service.call(request);
    for _ in 0..3 {
        if held.is_some() {
            assert!((&mut waiting).now_or_never().is_none());
        }
    }
    let before = reads.load(Ordering::SeqCst);
    drop(held);
    waiting.await.unwrap();
    assert_eq!(reads.load(Ordering::SeqCst), before);
    let body = bodies.recv().await.unwrap();
    assert_eq!(body.size_hint().exact(), Some(100 * FRAME));
    let length = body.collect().await.unwrap().to_bytes().len() as u64;
    assert_eq!(length, 100 * FRAME);
    before
}

#[tokio::test]
async fn no_more_is_read_than_the_bound_and_nothing_where_it_is_of_no_use() {
    let read = reads(|layer| layer.read_ahead(5_000), Version::HTTP_11, false).await;
    assert!((4..=5).contains(&read), "{read}");
    assert_eq!(
        reads(|layer| layer.read_ahead(0), Version::HTTP_11, false).await,
        0
    );
    assert_eq!(reads(|layer| layer, Version::HTTP_2, false).await, 0);
    assert_eq!(reads(|layer| layer, Version::HTTP_11, true).await, 0);
    // To its end, by default.
    assert_eq!(reads(|layer| layer, Version::HTTP_11, false).await, 101);
}

#[tokio::test]
async fn a_body_that_fails_gives_up_the_place() {
    let locks = Locks::new();
    let (mut service, mut bodies) = giving::<Boxed>(layer(&locks));
    let held = locks.take(NAME).await;
    let (mut feed, body) = Channel::<Bytes, io::Error>::new(8);
    let waiting = service.call(request(Boxed::new(body)));
    feed.send_data("one".into()).await.unwrap();
    feed.abort(io::Error::other("torn"));
    let response = waiting.await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(response.headers()["connection"], "close");
    drop(held);
    assert!(locks.is_free(NAME).await, "it stays in line");
    assert!(bodies.try_recv().is_err());
}

#[tokio::test]
async fn bodies_of_a_type_that_is_not_known_are_left_alone() {
    let locks = Locks::new();
    let (mut service, mut bodies) = giving::<Counted>(layer(&locks));
    let held = locks.take(NAME).await;
    let reads = Arc::<AtomicUsize>::default();
    let body = Counted {
        left: FRAME,
        reads: Arc::clone(&reads),
    };
    let mut waiting = service.call(request(body));
    assert!((&mut waiting).now_or_never().is_none());
    drop(held);
    waiting.await.unwrap();
    assert_eq!(reads.load(Ordering::SeqCst), 0);
    assert_eq!(bodies.recv().await.unwrap().left, FRAME);
}

#[test]
fn a_replayed_body_may_be_sent_to_another_thread() {
    fn sendable<T: Send + Unpin + 'static>() {}
    sendable::<ReplayedBody<Boxed>>();
    sendable::<ReplayedBody<axum::body::Body>>();
}
