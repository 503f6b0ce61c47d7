//! Never two at a time.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing;
use http::{Method, StatusCode};
use lock_core::LockPolicy;
use lock_tower::RouteLocks;
use tokio::task::JoinSet;

use crate::support::{Locks, Section, post};

const PATIENT: LockPolicy = LockPolicy::long_operation();

fn router(locks: &Locks, section: &Section) -> Router {
    let table = RouteLocks::new(locks.provider.clone())
        .route(
            Method::POST,
            "/orders/{id}/process",
            "order:change:<id>",
            PATIENT,
        )
        .unwrap()
        .route(
            Method::POST,
            "/orders/{id}/cancel",
            "order:change:<id>",
            PATIENT,
        )
        .unwrap();
    async fn handler(State(section): State<Section>) {
        section.pass(Duration::from_micros(300)).await;
    }
    Router::new()
        .route("/orders/{id}/process", routing::post(handler))
        .route("/orders/{id}/cancel", routing::post(handler))
        .route_layer(table)
        .with_state(section.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_requests_to_two_routes_with_one_lock_never_overlap() {
    let locks = Locks::new();
    let section = Section::default();
    let router = router(&locks, &section);
    let mut requests = JoinSet::new();
    for n in 0..200 {
        let router = router.clone();
        let uri = if n % 2 == 0 {
            "/orders/1/process"
        } else {
            "/orders/1/cancel"
        };
        requests.spawn(async move { post(&router, uri).await.status() });
    }
    while let Some(status) = requests.join_next().await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!((section.entered(), section.overlaps()), (200, 0));
    assert_eq!(locks.store.held(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_requests_for_one_lock_are_all_served() {
    const REQUESTS: usize = 5_000;
    let locks = Locks::new();
    let section = Section::default();
    let router = router(&locks, &section);
    let mut requests = JoinSet::new();
    for _ in 0..REQUESTS {
        let router = router.clone();
        requests.spawn(async move { post(&router, "/orders/1/process").await.status() });
    }
    while let Some(status) = requests.join_next().await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!((section.entered(), section.overlaps()), (REQUESTS, 0));
    assert_eq!(locks.store.held(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_dropped_at_any_moment_never_let_two_in_and_leak_nothing() {
    let locks = Locks::new();
    let section = Section::default();
    let router = router(&locks, &section);
    let mut requests = JoinSet::new();
    for n in 0..200_u64 {
        let router = router.clone();
        requests.spawn(async move {
            let patience = Duration::from_micros(n * 97 % 5_000);
            let _ = tokio::time::timeout(patience, post(&router, "/orders/1/process")).await;
        });
    }
    while let Some(ended) = requests.join_next().await {
        ended.unwrap();
    }
    locks.all_free().await;
    assert!(section.entered() > 0);
    assert_eq!(section.overlaps(), 0);
    assert_eq!(
        post(&router, "/orders/1/process").await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn requests_with_different_values_do_not_wait_for_each_other() {
    let locks = Locks::new();
    let section = Section::default();
    let router = router(&locks, &section);
    let _held = locks.take("order:change:1").await;
    for id in 2..10 {
        assert_eq!(
            post(&router, &format!("/orders/{id}/process"))
                .await
                .status(),
            StatusCode::OK
        );
    }
}
