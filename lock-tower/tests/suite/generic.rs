//! Any Tower service of HTTP requests, without a router.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use lock_core::LockName;
use lock_tower::{HeldLock, HoldUntil, LockLayer};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::{Locks, Log, NAME, TEMPLATE, URI, Work};

type Answer = Result<Response<Full<Bytes>>, Infallible>;

fn by_path(parts: &Parts) -> Result<LockName, lock_core::LockError> {
    LockName::new(
        "order",
        "process",
        parts.uri.path().split('/').nth(2).unwrap_or_default(),
    )
}

fn layer(locks: &Locks) -> LockLayer {
    locks.layer(TEMPLATE).key(by_path)
}

/// The request body can be anything.
fn request(method: Method) -> Request<&'static str> {
    Request::builder()
        .method(method)
        .uri(URI)
        .body("anything")
        .unwrap()
}

async fn name(request: Request<&'static str>) -> Answer {
    let held: &HeldLock = request.extensions().get().unwrap();
    Ok(Response::new(held.name().to_string().into()))
}

#[tokio::test]
async fn a_service_that_axum_does_not_know_is_locked_by_key() {
    let locks = Locks::new();
    let service = layer(&locks).layer(service_fn(name));
    let response = service
        .clone()
        .oneshot(request(Method::POST))
        .await
        .unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        NAME
    );

    let _held = locks.take(NAME).await;
    let response = service.oneshot(request(Method::POST)).await.unwrap();
    assert_eq!(response.status(), StatusCode::CONFLICT);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["lock"], TEMPLATE);
    assert_eq!(problem.get("instance"), None, "the path is filled");
}

#[tokio::test]
async fn without_a_key_route_parameters_are_a_mistake() {
    let (log, _capturing) = Log::capture();
    let locks = Locks::new();
    let service = locks.layer(TEMPLATE).layer(service_fn(name));
    for _ in 0..2 {
        let response = service
            .clone()
            .oneshot(request(Method::POST))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    let lines = log.lines("ERROR");
    assert!(
        lines.len() == 1 && lines[0].contains(".key(..)"),
        "{lines:?}"
    );
}

/// A service that is only called when it was ready, and counts how often it is cloned.
struct Counted {
    ready: bool,
    clones: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, Ordering::SeqCst);
        let (clones, calls) = (Arc::clone(&self.clones), Arc::clone(&self.calls));
        Self {
            ready: false,
            clones,
            calls,
        }
    }
}

impl Service<Request<&'static str>> for Counted {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<&'static str>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called without being ready"
        );
        self.calls.fetch_add(1, Ordering::SeqCst);
        async { Ok(Response::new(Full::default())) }.boxed()
    }
}

#[tokio::test]
async fn the_service_that_was_ready_is_called_and_only_under_the_lock() {
    let locks = Locks::new();
    let (clones, calls) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let service = Counted {
        ready: false,
        clones: Arc::clone(&clones),
        calls: Arc::clone(&calls),
    };
    let mut service = layer(&locks).wait(Duration::from_secs(60)).layer(service);

    // Being ready takes no lock, and a future that is not polled does not run the handler unlocked.
    let ready = service.ready().await.unwrap();
    assert_eq!(locks.store.held(), 0);
    assert_eq!(
        ready.call(request(Method::POST)).await.unwrap().status(),
        StatusCode::OK
    );
    assert_eq!(
        (clones.load(Ordering::SeqCst), calls.load(Ordering::SeqCst)),
        (0, 1)
    );

    // One that has to wait keeps the service that was ready.
    let held = locks.take(NAME).await;
    let mut waiting = service.ready().await.unwrap().call(request(Method::POST));
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    // Meanwhile the service is asked and called again.
    let second = service.ready().await.unwrap().call(request(Method::POST));
    drop(held);
    assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
    assert_eq!(second.await.unwrap().status(), StatusCode::OK);
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[test]
fn it_may_be_called_outside_a_runtime_and_awaited_inside() {
    let locks = Locks::new();
    let mut service = layer(&locks)
        .wait(Duration::from_secs(1))
        .layer(service_fn(name));
    let free = service.call(request(Method::POST));
    let contended = service.call(request(Method::POST));
    assert_eq!(locks.store.held(), 0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        assert_eq!(free.await.unwrap().status(), StatusCode::OK);
        let _held = locks.take(NAME).await;
        assert_eq!(contended.await.unwrap().status(), StatusCode::CONFLICT);
    });
}

#[tokio::test]
async fn an_error_of_the_service_is_its_error_and_releases() {
    let locks = Locks::new();
    let fails =
        service_fn(async |_: Request<&'static str>| Err::<Response<Full<Bytes>>, _>("torn"));
    for method in [Method::GET, Method::POST] {
        let error = layer(&locks)
            .layer(fails)
            .oneshot(request(method))
            .await
            .unwrap_err();
        assert_eq!(error, "torn");
        assert_eq!(locks.store.held(), 0);
    }
}

#[tokio::test]
async fn a_call_that_panics_releases() {
    let locks = Locks::new();
    let panics = service_fn(|_: Request<&'static str>| -> BoxFuture<'static, Answer> {
        panic!("on purpose")
    });
    let mut service = layer(&locks).layer(panics);
    let call = std::panic::AssertUnwindSafe(|| drop(service.call(request(Method::POST))));
    assert!(std::panic::catch_unwind(call).is_err());
    assert_eq!(locks.store.held(), 0);
}

#[tokio::test]
async fn what_is_left_of_a_future_that_panicked_goes_before_its_lock() {
    /// Has something left when it panics, as futures that are written by hand have.
    struct Panics(HeldLock, Arc<AtomicUsize>);
    impl Future for Panics {
        type Output = Answer;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
            panic!("on purpose")
        }
    }
    impl Drop for Panics {
        fn drop(&mut self) {
            self.1
                .fetch_add(1 + usize::from(self.0.is_valid()), Ordering::SeqCst);
        }
    }
    let locks = Locks::new();
    for method in [Method::GET, Method::POST] {
        let drops = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&drops);
        let service = service_fn(move |request: Request<&'static str>| {
            let held: &HeldLock = request.extensions().get().unwrap();
            Panics(held.clone(), Arc::clone(&seen))
        });
        let response = layer(&locks).layer(service).oneshot(request(method));
        assert!(tokio::spawn(response).await.unwrap_err().is_panic());
        assert_eq!(drops.load(Ordering::SeqCst), 2, "released under it");
        assert!(locks.is_free(NAME).await);
    }
}

#[tokio::test]
async fn a_response_that_is_never_awaited_holds_no_lock_when_it_is_dropped() {
    let locks = Locks::new();
    let work = Work::new();
    let inner = work.clone();
    let service = service_fn(move |_: Request<&'static str>| {
        let work = inner.clone();
        async move {
            work.run().await;
            Answer::Ok(Response::new(Full::default()))
        }
    });
    let mut service = layer(&locks).drop_on_disconnect().layer(service);
    drop(service.call(request(Method::POST)));
    assert_eq!((locks.store.held(), work.begun()), (0, 0));
}

#[tokio::test]
async fn a_body_of_the_service_holds_the_lock() {
    let locks = Locks::new();
    let service = layer(&locks)
        .hold_until(HoldUntil::BodyEnd)
        .layer(service_fn(name));
    let response = service.oneshot(request(Method::GET)).await.unwrap();
    assert!(!locks.is_free(NAME).await);
    assert!(format!("{:?}", response.body()).contains("locked: true"));
    response.into_body().collect().await.unwrap();
    assert!(locks.is_free(NAME).await);
}

#[test]
fn the_types_are_what_routers_ask_for() {
    fn layer<T: Clone + Send + Sync + 'static>() {}
    fn send<T: Send + 'static>() {}
    layer::<LockLayer>();
    #[cfg(feature = "axum")]
    layer::<lock_tower::RouteLocks>();
    layer::<lock_tower::Lock<axum::routing::Route>>();
    layer::<HeldLock>();
    send::<lock_tower::LockedBody<axum::body::Body>>();
    send::<lock_tower::LockRejection>();
    send::<lock_tower::ResponseFuture<axum::routing::Route, axum::body::Body, axum::body::Body>>();
}
