//! `LockedRouter`: routes that are registered together with their locks.

use axum::Router;
use axum::extract::State;
use axum::routing;
use http::{Method, StatusCode};
use lock_core::{LockErrorKind, LockPolicy};
use lock_tower::{HeldLock, LockedRouter, RouteLocks};

use crate::support::{Locks, NAME, PROCESS, TEMPLATE, URI, post, send, text};

const NOW: LockPolicy = LockPolicy::background_job();

/// Answers with the name of its lock, or that it has none.
async fn name(held: Option<HeldLock>) -> String {
    held.map_or("unlocked".to_owned(), |held| held.name().to_string())
}

async fn name_of(router: &Router, method: Method, uri: &str) -> String {
    let response = send(router, method, uri).await;
    assert_eq!(response.status(), StatusCode::OK, "{uri}");
    text(response).await
}

#[tokio::test]
async fn a_route_is_registered_with_its_lock() {
    let locks = Locks::new();
    let locked: LockedRouter = RouteLocks::new(locks.provider.clone())
        .status(LockErrorKind::Contended, StatusCode::LOCKED)
        .param("tenant", |_| "acme")
        .router()
        .unwrap()
        .route(PROCESS, routing::post(name), TEMPLATE, NOW)
        .unwrap()
        .any(
            "/reports/{id}",
            routing::any(name),
            "report:rebuild:<tenant>:<id>",
            NOW,
        )
        .unwrap();
    let router = locked
        .into_router()
        .route("/orders/{id}", routing::get(name));
    assert_eq!(name_of(&router, Method::POST, URI).await, NAME);
    assert_eq!(name_of(&router, Method::GET, "/orders/7").await, "unlocked");
    for method in [Method::GET, Method::PUT] {
        let held = name_of(&router, method, "/reports/9").await;
        assert_eq!(held, "report:rebuild:acme:9");
    }
    let _held = locks.take(NAME).await;
    assert_eq!(post(&router, URI).await.status(), StatusCode::LOCKED);
}

#[tokio::test]
async fn a_method_without_a_handler_does_not_wait_for_the_lock() {
    let locks = Locks::new();
    let locked: LockedRouter = RouteLocks::new(locks.provider.clone())
        .router()
        .unwrap()
        .route(PROCESS, routing::post(name), TEMPLATE, NOW)
        .unwrap()
        .route(PROCESS, routing::get(name), "order:show:<id>", NOW)
        .unwrap();
    let router = locked.into_router();
    let _held = locks.take(NAME).await;
    assert_eq!(post(&router, URI).await.status(), StatusCode::CONFLICT);
    assert_eq!(name_of(&router, Method::GET, URI).await, "order:show:7");
    let _both = locks.take("order:show:7").await;
    for method in [Method::OPTIONS, Method::PUT] {
        let response = send(&router, method, URI).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        let mut allowed: Vec<_> = response.headers()["allow"]
            .to_str()
            .unwrap()
            .split(',')
            .collect();
        allowed.sort_unstable();
        assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    }
}

#[tokio::test]
async fn a_locked_router_is_nested_merged_and_given_a_state() {
    let locks = Locks::new();
    let handler = async |State(state): State<&'static str>, held: HeldLock| {
        format!("{state}: {}", held.name())
    };
    let locked: LockedRouter<&'static str> = RouteLocks::new(locks.provider.clone())
        .router()
        .unwrap()
        .route(PROCESS, routing::post(handler), TEMPLATE, NOW)
        .unwrap();
    let merged = Router::new().merge(locked);
    let router = Router::new().nest("/api", merged).with_state("shop");
    let held = name_of(&router, Method::POST, "/api/orders/7/process").await;
    assert_eq!(held, "shop: order:process:7");
}

#[test]
fn a_wrong_route_is_an_error_that_says_how() {
    let locks = Locks::new();
    let add = |path: &str, template: &str| {
        let locked: LockedRouter = RouteLocks::new(locks.provider.clone()).router().unwrap();
        let added = locked.route(path, routing::post(name), template, NOW);
        added.unwrap_err().to_string()
    };
    for (path, template, wrong) in [
        (
            "/orders/{order}/process",
            TEMPLATE,
            "names `id`, and the route `/orders/{order}/process` has",
        ),
        ("/orders/:id/process", TEMPLATE, "write `{name}`"),
        ("orders", TEMPLATE, "must start with `/`"),
        (PROCESS, "order", "name is invalid"),
    ] {
        let error = add(path, template);
        assert!(error.contains(wrong), "{error}");
    }
}

#[test]
fn a_table_with_entries_is_not_mixed_with_routes() {
    let locks = Locks::new();
    let mixed = RouteLocks::new(locks.provider.clone())
        .route(Method::POST, PROCESS, TEMPLATE, NOW)
        .unwrap()
        .router::<()>();
    let error = mixed.unwrap_err();
    assert!(
        error.is_misconfigured() && error.to_string().contains(PROCESS),
        "{error}"
    );
}
