//! Handlers that go on without their client: how they end, and what of them is seen.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing;
use http::{Method, StatusCode};
use http_body_util::Channel;
use lock_tower::HeldLock;
use tokio::sync::mpsc;
use tower::ServiceExt;
use tracing::Instrument;

use crate::support::{Locks, Log, NAME, PROCESS, TEMPLATE, URI, Work, eventually, post, request};

/// Sends a request and drops its response once the work has begun.
async fn leave(router: &Router, work: &Work) {
    let begun = work.begun();
    tokio::select! {
        _ = post(router, URI) => panic!("the handler has ended"),
        () = work.has_begun(begun + 1) => {}
    }
}

fn router(locks: &Locks, work: &Work) -> Router {
    let layer = locks.layer(TEMPLATE);
    Router::new().route(PROCESS, routing::post(work.handler()).route_layer(layer))
}

#[tokio::test]
async fn it_ends_in_the_span_of_its_request() {
    let (log, _capturing) = Log::capture();
    let locks = Locks::new();
    let work = Work::new();
    let router = router(&locks, &work);
    leave(&router, &work)
        .instrument(tracing::info_span!("the-request"))
        .await;
    work.let_end();
    locks.all_free().await;
    eventually("its end is logged", || !log.lines("is done").is_empty()).await;
    assert_eq!(log.lines("runs on").len(), 1);
    for line in log.lines("client") {
        assert!(
            line.contains("the-request") && !line.contains(NAME),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_panic_releases_and_is_logged() {
    let (log, _capturing) = Log::capture();
    let locks = Locks::new();
    let work = Work::new();
    let inner = work.clone();
    let handler = async move || {
        inner.run().await;
        panic!("on purpose")
    };
    let layer = locks.layer(TEMPLATE);
    let router = Router::new().route(
        PROCESS,
        routing::post(async move || -> () { handler().await }).route_layer(layer),
    );
    leave(&router, &work).await;
    work.let_end();
    locks.all_free().await;
    eventually("the panic is logged", || {
        !log.lines("on purpose").is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_loss_stops_it() {
    let locks = Locks::new();
    let work = Work::new();
    leave(&router(&locks, &work), &work).await;
    locks.revoke(NAME);
    eventually("the handler is dropped", || work.dropped() == 1).await;
    assert!(locks.is_free(NAME).await);
}

#[tokio::test(start_paused = true)]
async fn max_hold_bounds_it() {
    let locks = Locks::new();
    let work = Work::new();
    let layer = locks.layer(TEMPLATE).max_hold(Duration::from_secs(30));
    let router = Router::new().route(PROCESS, routing::post(work.handler()).route_layer(layer));
    leave(&router, &work).await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(work.dropped(), 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((work.dropped(), work.ended()), (1, 0));
    assert!(locks.is_free(NAME).await);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_ends_it() {
    let locks = Locks::new();
    let work = Work::new();
    let (feeds, mut receiver) = mpsc::unbounded_channel();
    let inner = work.clone();
    let handler = async move || {
        inner.run().await;
        let (feed, body) = Channel::<bytes::Bytes, axum::Error>::new(1);
        feeds.send(feed).unwrap();
        Response::new(Body::new(body))
    };
    let layer = locks.layer(TEMPLATE);
    let router = Router::new().route(PROCESS, routing::post(handler).route_layer(layer));
    leave(&router, &work).await;
    work.let_end();
    let mut feed = receiver.recv().await.unwrap();
    locks.all_free().await;
    assert!(feed.send_data("late".into()).await.is_err());
}

#[tokio::test]
async fn it_keeps_the_guard_that_it_has_taken() {
    let locks = Locks::new();
    let work = Work::new();
    let inner = work.clone();
    let handler = async move |held: HeldLock| {
        let guard = held.into_guard().unwrap();
        inner.run().await;
        guard.release().await.unwrap();
    };
    let layer = locks.layer(TEMPLATE);
    let router = Router::new().route(PROCESS, routing::post(handler).route_layer(layer));
    leave(&router, &work).await;
    assert!(!locks.is_free(NAME).await);
    work.let_end();
    locks.all_free().await;
    assert_eq!(work.ended(), 1);
}

#[tokio::test]
async fn a_shutdown_of_the_provider_waits_for_it() {
    let locks = Locks::new();
    let work = Work::new();
    leave(&router(&locks, &work), &work).await;
    let (ended, ()) = tokio::join!(
        async {
            locks.provider.shutdown(Duration::from_secs(60)).await;
            work.ended()
        },
        async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            work.let_end();
        }
    );
    assert_eq!(ended, 1);
}

#[test]
fn the_end_of_the_runtime_stops_it_and_releases() {
    for workers in [0, 2] {
        let mut builder = match workers {
            0 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder
            .worker_threads(workers.max(1))
            .enable_all()
            .build()
            .unwrap();
        let locks = Locks::new();
        let work = Work::new();
        let router = router(&locks, &work);
        // One is detached already, one is dropped by the end of the runtime.
        runtime.block_on(leave(&router, &work));
        let layer = locks.layer("order:other:<id>");
        let other = Router::new().route(PROCESS, routing::post(work.handler()).route_layer(layer));
        runtime.spawn(async move { post(&other, URI).await });
        runtime.block_on(work.has_begun(2));
        assert_eq!(locks.store.held(), 2);
        drop(runtime);
        assert_eq!(work.dropped(), 2);
        assert_eq!(locks.store.held(), 0);
    }
}

#[test]
fn a_response_may_be_dropped_where_no_runtime_is() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    let locks = Locks::new();
    let work = Work::new();
    let router = router(&locks, &work);
    let mut response = Box::pin(router.oneshot(request(Method::POST, URI)));
    runtime.block_on(async {
        tokio::select! {
            _ = &mut response => panic!("the handler has ended"),
            () = work.has_begun(1) => {}
        }
    });
    drop(response);
    assert_eq!(locks.store.held(), 1);
    work.let_end();
    runtime.block_on(locks.all_free());
    assert_eq!(work.ended(), 1);
}

#[tokio::test]
async fn a_request_after_it_waits_for_it() {
    let locks = Locks::new();
    let work = Work::new();
    let layer = locks.layer(TEMPLATE).wait(Duration::from_secs(60));
    let router = Router::new().route(PROCESS, routing::post(work.handler()).route_layer(layer));
    leave(&router, &work).await;
    let retry = tokio::spawn({
        let router = router.clone();
        async move { post(&router, URI).await.status() }
    });
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(work.begun(), 1, "two at a time");
    work.let_end();
    work.has_begun(2).await;
    assert_eq!(work.ended(), 1);
    work.let_end();
    assert_eq!(retry.await.unwrap(), StatusCode::OK);
}
