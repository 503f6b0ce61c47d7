//! The routes for probes over a backend on strings.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use futures_util::future::join_all;
use lock_tests::scripted_backend::{Play, ScriptedBackend};
use lock_tower::health::{self, HealthRoutes};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt;

async fn get(app: &Router, path: &str) -> (StatusCode, Value) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let headers = response.headers();
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    let status = response.status();
    let body = to_bytes(response.into_body(), 10_000).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn status(app: &Router, path: &str) -> u16 {
    get(app, path).await.0.as_u16()
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_is_503_when_its_time_is_up_and_the_process_lives() {
    let scripted = ScriptedBackend::new();
    let app = health::router::<()>(scripted.client());
    assert_eq!(status(&app, "/health/ready").await, 200);
    scripted.every_health(Play::Hang);
    tokio::time::advance(SECOND).await;
    let started = Instant::now();
    // As it was before, until it is known to be otherwise.
    assert_eq!(status(&app, "/health/ready").await, 200);
    assert_eq!(started.elapsed(), SECOND / 2);
    let (status_of_all, body) = get(&app, "/health").await;
    assert_eq!(started.elapsed().as_secs(), 2);
    assert_eq!(status_of_all, 503);
    assert_eq!(body["status"], "down");
    let server = &body["servers"][0];
    assert_eq!(
        [&server["name"], &server["role"], &server["status"]],
        ["scripted", "locks", "down"]
    );
    let started = Instant::now();
    assert_eq!(
        get(&app, "/health/live").await,
        (StatusCode::OK, json!({ "status": "up" }))
    );
    // Known already, and told again without a wait.
    assert_eq!(status(&app, "/health/ready").await, 503);
    assert_eq!(started.elapsed(), Duration::ZERO);
    scripted.behave();
    tokio::time::advance(SECOND).await;
    assert_eq!(status(&app, "/health/ready").await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_asks_once_and_is_answered_together() {
    let scripted = ScriptedBackend::new();
    scripted.every_health(Play::Late(SECOND / 4));
    let app = health::router::<()>(scripted.client());
    let started = Instant::now();
    let crowd = (0..1_000).map(|_| status(&app, "/health/ready"));
    assert!(
        join_all(crowd)
            .await
            .into_iter()
            .all(|status| status == 200)
    );
    // One after the other they would be at it for minutes.
    assert_eq!(started.elapsed(), SECOND / 4);
}

#[tokio::test(start_paused = true)]
async fn a_readiness_probe_is_answered_within_half_a_second() {
    let scripted = ScriptedBackend::new();
    scripted.every_health(Play::Late(SECOND));
    let app = health::router::<()>(scripted.client());
    let unknown = |started: Instant, (status, body): (StatusCode, Value)| {
        assert_eq!(started.elapsed(), SECOND / 2);
        assert_eq!(status, 503);
        assert_eq!(body["status"], "unknown");
        let server = &body["servers"][0];
        assert_eq!(
            (&server["name"], &server["status"]),
            (&json!("scripted"), &json!("unknown"))
        );
    };
    // Never answered: there is nothing to go by.
    let started = Instant::now();
    unknown(started, get(&app, "/health/ready").await);
    // The answer is in by the next probe.
    tokio::time::advance(SECOND / 2).await;
    assert_eq!(status(&app, "/health/ready").await, 200);
    // A slow server stays ready by its last answer, probe after probe.
    for _ in 0..3 {
        tokio::time::advance(10 * SECOND).await;
        let started = Instant::now();
        assert_eq!(status(&app, "/health/ready").await, 200);
        assert_eq!(started.elapsed(), SECOND / 2);
        tokio::time::sleep(SECOND).await;
    }
    // One of long ago tells nothing.
    tokio::time::advance(60 * SECOND).await;
    let started = Instant::now();
    unknown(started, get(&app, "/health/ready").await);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_given_again_until_it_is_old() {
    let scripted = ScriptedBackend::new();
    let app = HealthRoutes::new(scripted.client())
        .max_age(3 * SECOND)
        .into_router::<()>();
    assert_eq!(status(&app, "/health").await, 200);
    scripted.every_health(Play::Fail("down"));
    tokio::time::advance(3 * SECOND - Duration::from_millis(1)).await;
    assert_eq!(status(&app, "/health").await, 200);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(status(&app, "/health").await, 503);
}

#[tokio::test(start_paused = true)]
async fn what_a_probe_that_leaves_has_asked_is_answered_to_the_next() {
    let scripted = ScriptedBackend::new();
    scripted.every_health(Play::Hang);
    let app = health::router::<()>(scripted.client());
    let impatient = tokio::time::timeout(SECOND, status(&app, "/health"));
    assert!(impatient.await.is_err());
    scripted.behave();
    let started = Instant::now();
    assert_eq!(status(&app, "/health").await, 503);
    assert_eq!(started.elapsed(), SECOND);
    tokio::time::advance(SECOND).await;
    assert_eq!(status(&app, "/health").await, 200);
}

#[test]
fn what_was_asked_in_a_runtime_that_ended_is_asked_again() {
    let scripted = ScriptedBackend::new();
    scripted.every_health(Play::Hang);
    let app = health::router::<()>(scripted.client());
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let ended = runtime();
    let impatient = async { tokio::time::timeout(SECOND, status(&app, "/health")).await };
    assert!(ended.block_on(impatient).is_err());
    drop(ended);
    scripted.behave();
    assert_eq!(runtime().block_on(status(&app, "/health")), 200);
}

#[tokio::test(start_paused = true)]
async fn trouble_that_is_only_reported_takes_nobody_out_of_rotation() {
    let scripted = ScriptedBackend::new();
    scripted.every_health(Play::Fail("down"));
    let routes = HealthRoutes::new(scripted.client()).report_only();
    let app = routes.into_router::<()>();
    let (status_of_all, body) = get(&app, "/health").await;
    assert_eq!(
        (status_of_all.as_u16(), &body["status"]),
        (200, &json!("down"))
    );
    assert_eq!(status(&app, "/health/ready").await, 200);
}

#[tokio::test(start_paused = true)]
async fn no_probe_takes_a_lock_and_none_is_needed() {
    let scripted = ScriptedBackend::new();
    // Whatever is tried fails.
    scripted.every_try(Play::Misconfigured);
    let app = health::router::<()>(scripted.client());
    assert_eq!(status(&app, "/health").await, 200);
    assert_eq!(scripted.held(), 0);
}
