//! That an answer names who holds the lock: where that was asked for, and nowhere else.

use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing;
use http::{Method, StatusCode};
use lock_core::{Holder, LockError, LockMode, LockPolicy, LockProvider};
use lock_tower::{LockRejection, RouteLocks};

use crate::support::{Locks, NAME, PROCESS, TEMPLATE, URI, json, post, text};

/// Locks of an instance with a name, and those of the service.
fn shop() -> (Locks, LockProvider) {
    let locks = Locks::new();
    let other = locks.store.clone().with_instance("10.0.0.5:8080").unwrap();
    (locks, LockProvider::new(other))
}

#[tokio::test]
async fn no_answer_names_a_holder_unless_asked_to() {
    let (locks, other) = shop();
    let held = other.acquire(NAME, Duration::ZERO).await.unwrap();
    let layer = locks.layer(TEMPLATE);
    let service = routing::post(async || "done").route_layer(layer);
    let router = Router::new().route(PROCESS, service);
    let response = post(&router, URI).await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    let body = text(response).await;
    assert!(
        !body.contains("holder") && !body.contains("10.0.0.5"),
        "{body}"
    );
    drop(held);
}

#[tokio::test]
async fn a_layer_that_was_asked_to_names_the_holder() {
    let (locks, other) = shop();
    let held = other.acquire(NAME, Duration::ZERO).await.unwrap();
    for wait in [Duration::ZERO, Duration::from_millis(20)] {
        let layer = locks.layer(TEMPLATE).wait(wait).name_holder();
        let service = routing::post(async || "done").route_layer(layer);
        let router = Router::new().route(PROCESS, service);
        let response = post(&router, URI).await;
        assert_eq!(response.status(), StatusCode::CONFLICT);
        let problem = json(response).await;
        assert_eq!(problem["holder"], "10.0.0.5:8080");
        assert_eq!(problem["lock"], TEMPLATE);
    }
    drop(held);
}

#[tokio::test]
async fn a_table_names_the_holder_as_a_layer_does() {
    let (locks, other) = shop();
    let held = other.acquire(NAME, Duration::ZERO).await.unwrap();
    let table = RouteLocks::new(locks.provider.clone())
        .route(
            Method::POST,
            PROCESS,
            TEMPLATE,
            LockPolicy::background_job(),
        )
        .unwrap()
        .name_holder();
    let router = Router::new()
        .route(PROCESS, routing::post(async || "done"))
        .route_layer(table);
    let problem = json(post(&router, URI).await).await;
    assert_eq!(problem["holder"], "10.0.0.5:8080");
    drop(held);
    assert_eq!(post(&router, URI).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn what_is_no_contention_asks_for_no_holder() {
    let (locks, _) = shop();
    let layer = locks.layer(TEMPLATE).name_holder();
    let service = routing::post(async || "done").route_layer(layer);
    let router = Router::new().route(PROCESS, service);
    locks.store.set_available(false);
    let response = post(&router, URI).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!text(response).await.contains("holder"));
}

#[tokio::test]
async fn an_answer_of_a_service_can_look_at_the_holder() {
    let (locks, other) = shop();
    let held = other.acquire(NAME, Duration::ZERO).await.unwrap();
    let layer = locks
        .layer(TEMPLATE)
        .name_holder()
        .on_rejection(|rejection| {
            let since = rejection.holder().and_then(Holder::since);
            assert!(since.is_some());
            rejection.with_holder(None).to_response()
        });
    let service = routing::post(async || "done").route_layer(layer);
    let router = Router::new().route(PROCESS, service);
    let response = post(&router, URI).await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    assert!(!text(response).await.contains("holder"));
    drop(held);
}

#[tokio::test]
async fn a_rejection_of_a_handler_names_whom_it_is_given() {
    let holder = || Holder::new(LockMode::Exclusive).with_instance("web-1");
    let refused = || LockRejection::from(LockError::contended());
    let named = refused().with_holder(holder());
    let body = named.to_response().into_body();
    assert!(String::from_utf8_lossy(&body).contains(r#""holder":"web-1""#));
    let headers = named.to_grpc_response().headers().clone();
    assert_eq!(headers["distributed-lock-holder"], "web-1");
    let unnamed = refused().with_holder(Holder::new(LockMode::Exclusive));
    for rejection in [refused(), unnamed] {
        let body = rejection.to_response().into_body();
        assert!(!String::from_utf8_lossy(&body).contains("holder"));
        let headers = rejection.to_grpc_response().headers().clone();
        assert!(!headers.contains_key("distributed-lock-holder"));
    }
}

/// Any of those that have a permit.
#[tokio::test]
async fn an_answer_names_a_holder_of_a_permit() {
    let (locks, other) = shop();
    let lock = other.lock(NAME).unwrap().permits(2);
    let _held = [
        lock.acquire(Duration::ZERO).await.unwrap(),
        lock.acquire(Duration::ZERO).await.unwrap(),
    ];
    let layer = locks.layer(TEMPLATE).permits(2).name_holder();
    let service = routing::post(async || "done").route_layer(layer);
    let router = Router::new().route(PROCESS, service);
    let response = post(&router, URI).await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    assert_eq!(json(response).await["holder"], "10.0.0.5:8080");
}

#[tokio::test]
async fn a_kept_lock_is_worth_another_try_once_it_opens() {
    const LEFT: Duration = Duration::from_secs(50);
    let kept = Holder::new(LockMode::Exclusive).with_until(SystemTime::now() + LEFT);
    let refused = LockRejection::from(LockError::contended()).with_holder(kept);
    assert!(refused.retry_after().unwrap() >= LEFT);
    let after = refused.to_response().headers()["retry-after"].clone();
    let after: u64 = after.to_str().unwrap().parse().unwrap();
    assert!((50..=54).contains(&after), "{after}");
    // No time after which the outcome would be known.
    let kept = Holder::new(LockMode::Exclusive).with_until(SystemTime::now() + LEFT);
    let unknown = LockRejection::from(LockError::contended().with_outcome_unknown());
    assert_eq!(unknown.with_holder(kept).retry_after(), None);
}
