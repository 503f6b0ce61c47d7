//! Mistakes of the set-up: 500, one line in the log for many requests, and never a request that runs
//! unlocked.

use axum::Router;
use axum::routing;
use http::{Method, StatusCode};
use lock_tower::{HeldLock, LockLayer};
use tower::Layer;

use crate::support::{Locks, Log, PROCESS, TEMPLATE, URI, Work, json, post, send};

/// Sends requests that must all be refused for one reason, and gives what the log says of it.
async fn refused(router: Router, uris: &[&str], work: &Work) -> String {
    let (log, _capturing) = Log::capture();
    // A handler that did run would answer.
    (0..10).for_each(|_| work.let_end());
    for uri in uris.iter().cycle().take(3 * uris.len()) {
        let response = post(&router, uri).await;
        assert_eq!(
            response.status(),
            StatusCode::INTERNAL_SERVER_ERROR,
            "{uri}"
        );
        let problem = json(response).await;
        assert_eq!(problem["reason"], "lock-misconfigured");
        assert_eq!(problem.get("detail"), None);
    }
    assert_eq!(work.begun(), 0, "a handler ran without its lock");
    let mut lines = log.lines("ERROR");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = lines.remove(0);
    assert!(!line.contains("42"), "the log shows a value: {line}");
    line
}

fn inner(work: &Work) -> Router {
    Router::new().route(PROCESS, routing::post(work.handler()))
}

fn layer() -> LockLayer {
    Locks::new().layer(TEMPLATE)
}

#[tokio::test]
async fn around_a_whole_router() {
    let work = Work::new();
    let around = Router::new().fallback_service(layer().layer(inner(&work)));
    let log = refused(around, &["/orders/42/process", "/elsewhere"], &work).await;
    assert!(
        log.contains("no route has matched") && log.contains("route_layer"),
        "{log}"
    );
}

#[tokio::test]
async fn on_a_fallback() {
    let work = Work::new();
    let router = inner(&work)
        .layer(layer())
        .fallback(work.handler())
        .layer(layer());
    let log = refused(router, &["/elsewhere/42"], &work).await;
    assert!(log.contains("no route has matched"), "{log}");
}

#[tokio::test]
async fn on_a_fallback_of_a_nested_router() {
    let work = Work::new();
    let nested = Router::new().fallback(work.handler()).layer(layer());
    let router = Router::new().nest("/orders/{id}", nested);
    let log = refused(router, &["/orders/42/process"], &work).await;
    assert!(log.contains("no route has matched"), "{log}");
}

#[tokio::test]
async fn around_a_nested_service() {
    let work = Work::new();
    let router = Router::new()
        .nest_service("/api", inner(&work))
        .route_layer(layer());
    let log = refused(router, &["/api/orders/42/process"], &work).await;
    assert!(log.contains("no route has matched"), "{log}");
}

#[tokio::test]
async fn a_parameter_that_the_route_lacks() {
    let work = Work::new();
    let router = inner(&work).route_layer(Locks::new().layer("order:process:<order_id>"));
    let log = refused(router, &["/orders/42/process"], &work).await;
    assert!(
        log.contains("`order_id`") && log.contains("the parameters `id`"),
        "{log}"
    );
    assert!(log.contains(PROCESS), "{log}");
}

#[tokio::test]
async fn a_route_without_parameters() {
    let work = Work::new();
    let router = Router::new()
        .route("/process", routing::post(work.handler()))
        .route_layer(layer());
    let log = refused(router, &["/process"], &work).await;
    assert!(log.contains("no route parameters"), "{log}");
}

#[tokio::test]
async fn a_parameter_that_the_route_has_twice() {
    let work = Work::new();
    let nested = inner(&work).route_layer(layer());
    let router = Router::new().nest_service("/tenants/{id}", nested);
    let log = refused(router, &["/tenants/42/orders/42/process"], &work).await;
    assert!(log.contains("more than one parameter `id`"), "{log}");
}

#[tokio::test]
async fn a_param_that_the_template_does_not_name() {
    let work = Work::new();
    let router = inner(&work).route_layer(layer().param("tenant", |_| "acme"));
    let log = refused(router, &["/orders/42/process"], &work).await;
    assert!(log.contains("tenant") && log.contains(TEMPLATE), "{log}");
}

#[tokio::test]
async fn each_mistake_is_logged_once() {
    let (log, _capturing) = Log::capture();
    let work = Work::new();
    let routes = Router::new()
        .route("/a/{one}", routing::post(work.handler()))
        .route("/b/{two}", routing::post(work.handler()))
        .route_layer(layer());
    for uri in ["/a/1", "/b/2", "/a/3", "/b/4"] {
        assert_eq!(
            post(&routes, uri).await.status(),
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }
    assert_eq!(log.lines("ERROR").len(), 2);
    assert_eq!((log.lines("`one`").len(), log.lines("`two`").len()), (1, 1));
}

#[tokio::test]
async fn each_route_whose_handler_extracts_a_lock_that_is_not_there_is_logged() {
    async fn handler(_: HeldLock) {}
    let (log, _capturing) = Log::capture();
    let router = Router::new()
        .route("/first/{id}", routing::post(handler).put(handler))
        .route("/second/{id}", routing::post(handler))
        .fallback(handler);
    for uri in [
        "/first/42",
        "/second/42",
        "/elsewhere/42",
        "/first/43",
        "/second/44",
    ] {
        for method in [Method::POST, Method::PUT] {
            send(&router, method, uri).await;
        }
    }
    let lines = log.lines("HeldLock");
    assert!(lines.iter().all(|line| !line.contains("/4")), "{lines:?}");
    for route in [
        "`POST /first/{id}`",
        "`PUT /first/{id}`",
        "`POST /second/{id}`",
        "a fallback (PUT)",
    ] {
        let logged = lines.iter().filter(|line| line.contains(route));
        assert_eq!(logged.count(), 1, "{route}: {lines:?}");
    }
}

#[tokio::test]
async fn an_extractor_without_a_lock() {
    async fn handler(_: HeldLock) {}
    async fn either(held: Option<HeldLock>) -> String {
        held.is_some().to_string()
    }
    let (log, _capturing) = Log::capture();
    let router = Router::new().route(PROCESS, routing::post(handler).get(either));
    for _ in 0..3 {
        let response = post(&router, URI).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(json(response).await["reason"], "lock-misconfigured");
    }
    let lines = log.lines("HeldLock");
    let route = format!("`POST {PROCESS}`");
    assert!(
        matches!(&lines[..], [line] if line.contains(&route) && !line.contains("42")),
        "{lines:?}"
    );
    let without = send(&router, Method::GET, URI).await;
    assert_eq!(crate::support::text(without).await, "false");
    let with = send(&router.route_layer(layer()), Method::GET, URI).await;
    assert_eq!(crate::support::text(with).await, "true");
}
