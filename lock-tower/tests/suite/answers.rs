//! What clients are answered, to the member and the header.

use std::collections::HashSet;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing;
use bytes::Bytes;
use http::{Method, StatusCode};
use lock_core::{LockError, LockErrorKind, LockName, LockPolicy};
use lock_tower::{LockLayer, LockRejection};
use serde_json::{Value, json};

use crate::support::{
    Locks, NAME, PROCESS, TEMPLATE, URI, Work, json as body_of, post, send, text,
};

fn router(layer: LockLayer) -> Router {
    Router::new().route(PROCESS, routing::post(async || "done").route_layer(layer))
}

/// Takes the members that differ from time to time, and checks them.
fn take_retry(problem: &mut Value, retry_after: &str, bounds: std::ops::Range<u64>) {
    let members = problem.as_object_mut().unwrap();
    let millis = members.remove("retry_after_ms").unwrap().as_u64().unwrap();
    assert!(bounds.contains(&millis), "{millis}");
    assert_eq!(retry_after, millis.div_ceil(1000).to_string());
    assert!(millis.div_ceil(1000) >= 1);
}

fn header(response: &axum::response::Response, name: &str) -> Option<String> {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap().to_owned())
}

fn assert_problem(response: &axum::response::Response, status: StatusCode) {
    assert_eq!(response.status(), status);
    assert_eq!(
        header(response, "content-type").unwrap(),
        "application/problem+json"
    );
    assert_eq!(header(response, "cache-control").unwrap(), "no-store");
}

#[tokio::test]
async fn contention_is_409() {
    let locks = Locks::new();
    let router = router(locks.layer(TEMPLATE));
    let held = locks.take(NAME).await;

    let response = post(&router, URI).await;

    assert_problem(&response, StatusCode::CONFLICT);
    assert_eq!(response.extensions().get(), Some(&LockErrorKind::Contended));
    let retry_after = header(&response, "retry-after").unwrap();
    let mut problem = body_of(response).await;
    take_retry(&mut problem, &retry_after, 1_000..3_000);
    let waited = problem
        .as_object_mut()
        .unwrap()
        .remove("waited_ms")
        .unwrap();
    assert!(waited.as_u64().unwrap() < 1_000);
    assert_eq!(
        problem,
        json!({
            "type": "urn:distributed-lock:problem:lock-contended",
            "title": "Locked by another request",
            "status": 409,
            "detail": "Another request is working on this; try again later.",
            "instance": "/orders/{id}/process",
            "reason": "lock-contended",
            "lock": "order:process:<id>",
        })
    );
    drop(held);
    assert_eq!(post(&router, URI).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn contention_after_a_wait_says_so() {
    let locks = Locks::new();
    let router = router(
        locks
            .layer(TEMPLATE)
            .wait(LockPolicy::user_request().wait()),
    );
    let _held = locks.take(NAME).await;

    let response = post(&router, URI).await;

    assert_problem(&response, StatusCode::CONFLICT);
    let problem = body_of(response).await;
    assert_eq!(problem["reason"], "lock-wait-timeout");
    assert_eq!(
        problem["type"],
        "urn:distributed-lock:problem:lock-contended"
    );
    let waited = problem["waited_ms"].as_u64().unwrap();
    assert!((5_000..5_100).contains(&waited), "{waited}");
}

#[tokio::test]
async fn a_backend_that_is_down_is_503() {
    let locks = Locks::new();
    let work = Work::new();
    let layer = locks.layer(TEMPLATE);
    let router = Router::new().route(PROCESS, routing::post(work.handler()).route_layer(layer));
    locks.store.set_available(false);

    let response = post(&router, URI).await;

    assert_problem(&response, StatusCode::SERVICE_UNAVAILABLE);
    let retry_after = header(&response, "retry-after").unwrap();
    let mut problem = body_of(response).await;
    take_retry(&mut problem, &retry_after, 2_000..6_000);
    problem
        .as_object_mut()
        .unwrap()
        .remove("waited_ms")
        .unwrap();
    assert_eq!(
        problem,
        json!({
            "type": "urn:distributed-lock:problem:lock-unavailable",
            "title": "Locks are unavailable",
            "status": 503,
            "detail": "Whether another request is working on this cannot be told now; try again later.",
            "instance": "/orders/{id}/process",
            "reason": "lock-unavailable",
            "lock": "order:process:<id>",
        })
    );
    assert_eq!(work.begun(), 0);
}

#[tokio::test]
async fn a_provider_that_shuts_down_is_503() {
    let locks = Locks::new();
    let router = router(locks.layer(TEMPLATE));
    locks.provider.shutdown(Duration::ZERO).await;

    let response = post(&router, URI).await;

    assert_problem(&response, StatusCode::SERVICE_UNAVAILABLE);
    assert!(header(&response, "retry-after").is_some());
    assert_eq!(body_of(response).await["reason"], "lock-closed");
}

#[tokio::test]
async fn a_lock_that_is_lost_is_500_with_an_unknown_outcome() {
    let locks = Locks::new();
    let work = Work::new();
    let layer = locks.layer(TEMPLATE);
    let router = Router::new().route(PROCESS, routing::post(work.handler()).route_layer(layer));

    let (response, ()) = tokio::join!(post(&router, URI), async {
        work.has_begun(1).await;
        locks.revoke(NAME);
        // It could go on now, and must not.
        work.let_end();
    });

    assert_problem(&response, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(header(&response, "retry-after"), None);
    assert_eq!(
        body_of(response).await,
        json!({
            "type": "urn:distributed-lock:problem:lock-lost",
            "title": "Lock lost",
            "status": 500,
            "detail": "The lock was lost while the request was worked on, and the work was stopped.",
            "instance": "/orders/{id}/process",
            "reason": "lock-lost",
            "lock": "order:process:<id>",
            "outcome": "unknown",
        })
    );
    assert_eq!((work.dropped(), work.ended()), (1, 0));
}

#[tokio::test]
async fn a_value_that_makes_no_name_is_400() {
    let locks = Locks::new();
    let router = router(locks.layer(TEMPLATE));

    let response = post(&router, "/orders/%FF/process").await;

    assert_problem(&response, StatusCode::BAD_REQUEST);
    assert_eq!(header(&response, "retry-after"), None);
    assert_eq!(
        body_of(response).await,
        json!({
            "type": "urn:distributed-lock:problem:lock-name-invalid",
            "title": "Not a lock name",
            "status": 400,
            "detail": "A value in the request is missing, or cannot be part of the name of a lock.",
            "instance": "/orders/{id}/process",
            "reason": "lock-name-invalid",
            "lock": "order:process:<id>",
        })
    );
}

#[tokio::test]
async fn a_mistake_is_500_without_a_word_about_it() {
    let locks = Locks::new();
    let router = router(locks.layer("order:process:<order_id>"));

    let response = post(&router, URI).await;

    assert_problem(&response, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(header(&response, "retry-after"), None);
    assert_eq!(
        body_of(response).await,
        json!({
            "type": "urn:distributed-lock:problem:lock-misconfigured",
            "title": "Internal server error",
            "status": 500,
            "instance": "/orders/{id}/process",
            "reason": "lock-misconfigured",
        })
    );
}

#[tokio::test]
async fn those_who_are_refused_together_do_not_come_back_together() {
    let locks = Locks::new();
    let router = router(locks.layer(TEMPLATE));
    let _held = locks.take(NAME).await;

    let mut retries = HashSet::new();
    for _ in 0..20 {
        retries.insert(body_of(post(&router, URI).await).await["retry_after_ms"].as_u64());
    }

    assert!(retries.len() > 5, "{retries:?}");
}

#[tokio::test]
async fn no_answer_shows_a_filled_name() {
    let locks = Locks::new();
    let router = router(locks.layer(TEMPLATE));
    let _held = locks.take("order:process:alice@example.org").await;

    let response = post(&router, "/orders/alice@example.org/process").await;

    assert_eq!(response.status(), StatusCode::CONFLICT);
    assert!(!format!("{:?}", response.headers()).contains("alice"));
    assert!(!text(response).await.contains("alice"));
}

#[tokio::test]
async fn a_head_request_is_answered_without_a_body() {
    let locks = Locks::new();
    let layer = locks.layer(TEMPLATE);
    let router = Router::new().route(PROCESS, routing::get(async || "done").route_layer(layer));
    let _held = locks.take(NAME).await;

    let response = send(&router, Method::HEAD, URI).await;

    assert_problem(&response, StatusCode::CONFLICT);
    assert!(header(&response, "content-length").is_some_and(|length| length != "0"));
    assert_eq!(text(response).await, "");
}

#[tokio::test]
async fn a_handler_answers_with_its_own_lock_error() {
    async fn handler() -> Result<(), LockRejection> {
        let name = LockName::new("report", "rebuild", "2026").unwrap();
        let waited = Duration::from_millis(1_500);
        Err(LockError::contended().with_lock(&name).with_waited(waited))?;
        Ok(())
    }
    let router = Router::new().route("/", routing::post(handler));

    let response = post(&router, "/").await;

    assert_problem(&response, StatusCode::CONFLICT);
    let retry_after = header(&response, "retry-after").unwrap();
    let mut problem = body_of(response).await;
    take_retry(&mut problem, &retry_after, 1_000..3_000);
    assert_eq!(
        problem,
        json!({
            "type": "urn:distributed-lock:problem:lock-contended",
            "title": "Locked by another request",
            "status": 409,
            "detail": "Another request is working on this; try again later.",
            "reason": "lock-wait-timeout",
            "lock": "report:rebuild",
            "waited_ms": 1500,
        })
    );
}

#[tokio::test]
async fn a_status_is_chosen_for_a_kind_of_refusal() {
    let locks = Locks::new();
    let layer = (locks.layer(TEMPLATE))
        .status(LockErrorKind::Contended, StatusCode::GONE)
        .status(LockErrorKind::Contended, StatusCode::LOCKED);
    let router = router(layer);
    let _held = locks.take(NAME).await;

    let response = post(&router, URI).await;

    assert_problem(&response, StatusCode::LOCKED);
    assert!(header(&response, "retry-after").is_some());
    let problem = body_of(response).await;
    assert_eq!(problem["status"], 423);
    assert_eq!(problem["reason"], "lock-contended");
    locks.store.set_available(false);
    let response = post(&router, "/orders/8/process").await;
    assert_problem(&response, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn on_rejection_knows_the_request_and_makes_the_answer() {
    let locks = Locks::new();
    let layer = locks.layer(TEMPLATE).on_rejection(|rejection| {
        assert_eq!(rejection.kind(), LockErrorKind::Contended);
        assert_eq!(rejection.method(), Some(&Method::POST));
        assert_eq!(rejection.uri().unwrap(), "/api/orders/7/process?fast=1");
        assert_eq!(rejection.route(), Some("/api/orders/{id}/process"));
        assert_eq!(rejection.template(), Some("order:process:<id>"));
        assert_eq!(rejection.status(), StatusCode::CONFLICT);
        assert_eq!(rejection.error().lock().unwrap().as_str(), NAME);
        let mut response = rejection.to_response().map(|_| Bytes::from_static(b"busy"));
        *response.status_mut() = StatusCode::LOCKED;
        response
    });
    let router = Router::new().nest("/api", router(layer));
    let _held = locks.take(NAME).await;

    let response = post(&router, "/api/orders/7/process?fast=1").await;

    assert_eq!(response.status(), StatusCode::LOCKED);
    assert_eq!(text(response).await, "busy");
}

#[tokio::test]
async fn a_rejection_is_an_error_that_shows_no_filled_name() {
    let name: LockName = NAME.parse().unwrap();
    let error = LockError::unavailable("no answer")
        .with_lock(&name)
        .with_source("cut off");
    let rejection = LockRejection::from(error);
    assert_eq!(
        rejection.to_string(),
        "lock `order:process` is unavailable: no answer"
    );
    assert_eq!(
        std::error::Error::source(&rejection).unwrap().to_string(),
        "cut off"
    );
    assert!(!format!("{rejection:?}").contains(NAME));
    assert!(rejection.retry_after().unwrap() >= Duration::from_secs(1));
    assert_eq!(
        rejection.into_response().status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
}
