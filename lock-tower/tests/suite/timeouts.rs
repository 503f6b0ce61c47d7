//! `TimeoutLayer` of tower-http, inside and outside the lock, as the documentation tells.

use std::time::Duration;

use axum::Router;
use axum::routing;
use http::StatusCode;
use tower_http::timeout::TimeoutLayer;

use crate::support::{Locks, NAME, PROCESS, TEMPLATE, URI, Work, post};

fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(10))
}

#[tokio::test(start_paused = true)]
async fn inside_it_stops_the_handler_and_frees_the_lock() {
    let locks = Locks::new();
    let work = Work::new();
    let route = routing::post(work.handler())
        .route_layer(timeout())
        .route_layer(locks.layer(TEMPLATE));
    let response = post(&Router::new().route(PROCESS, route), URI).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!((work.dropped(), locks.store.held()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn outside_it_is_a_client_that_leaves() {
    let locks = Locks::new();
    let work = Work::new();
    let route = routing::post(work.handler())
        .route_layer(locks.layer(TEMPLATE))
        .route_layer(timeout());
    let response = post(&Router::new().route(PROCESS, route), URI).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(work.dropped(), 0);
    assert!(!locks.is_free(NAME).await);
    work.let_end();
    locks.all_free().await;
    assert_eq!(work.ended(), 1);
}
