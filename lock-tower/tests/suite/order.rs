//! Settings in any order: what is set after an entry or before a policy counts as well, and what can count for
//! nothing is a mistake.

use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::routing;
use http::{Method, StatusCode};
use lock_core::{LockErrorKind, LockPolicy};
use lock_tower::{HeldLock, LockLayer, LockedRouter, RouteLocks};
use tokio::time::Instant;

use crate::support::{Locks, Log, NAME, PROCESS, TEMPLATE, URI, json, post, send, text};

const NOW: LockPolicy = LockPolicy::background_job();
const REPORT: &str = "/reports/{id}";

async fn name(held: Option<HeldLock>) -> String {
    held.map_or("unlocked".to_owned(), |held| held.name().to_string())
}

fn routes() -> Router {
    Router::new()
        .route(PROCESS, routing::post(name))
        .route(REPORT, routing::post(name))
        .route("/orders/{id}", routing::get(name))
}

fn table() -> RouteLocks {
    RouteLocks::new(Locks::new().provider)
}

/// With an entry for orders.
fn orders(table: RouteLocks) -> RouteLocks {
    let added = table.route(Method::POST, PROCESS, TEMPLATE, NOW);
    added.unwrap()
}

/// With an entry for reports.
fn reports(table: RouteLocks) -> RouteLocks {
    let added = table.route(Method::POST, REPORT, "report:rebuild:<id>", NOW);
    added.unwrap()
}

async fn lock_of(table: &RouteLocks, uri: &str) -> String {
    let response = post(&routes().route_layer(table.clone()), uri).await;
    assert_eq!(response.status(), StatusCode::OK, "{uri}");
    text(response).await
}

/// Asserts that a request is refused for a mistake, which the log explains.
async fn is_refused(router: &Router, uri: &str, why: &str) {
    let (log, _capturing) = Log::capture();
    let response = post(router, uri).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(json(response).await["reason"], "lock-misconfigured");
    let lines = log.lines("ERROR");
    assert!(lines.len() == 1 && lines[0].contains(why), "{lines:?}");
}

#[tokio::test]
async fn a_type_is_for_entries_before_and_after_it() {
    let after = orders(table()).param_as::<u64>("id");
    assert_eq!(lock_of(&after, "/orders/07/process").await, NAME);
    let between = reports(orders(table()).param_as::<u64>("id"));
    assert_eq!(lock_of(&between, "/orders/07/process").await, NAME);
    assert_eq!(lock_of(&between, "/reports/09").await, "report:rebuild:9");
}

#[tokio::test]
async fn a_param_is_for_an_entry_before_it() {
    let after = orders(table()).param("id", |_| "x");
    assert_eq!(lock_of(&after, URI).await, "order:process:x");
    // A route that lacks the parameter says so when it is added.
    let lacking = table().route(Method::POST, PROCESS, "order:process:<tenant>:<id>", NOW);
    let error = lacking.unwrap_err().to_string();
    assert!(error.contains("`.param(..)` before this entry"), "{error}");
}

#[tokio::test]
async fn a_second_type_is_for_the_entries_after_it() {
    let first = orders(table().param_as::<u64>("id"));
    let both = reports(first.param_as::<i64>("id"));
    assert_eq!(lock_of(&both, "/orders/07/process").await, NAME);
    assert_eq!(lock_of(&both, "/reports/-09").await, "report:rebuild:-9");
    let negative = post(&routes().route_layer(both), "/orders/-7/process").await;
    assert_eq!(negative.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_param_that_no_entry_takes_is_a_mistake() {
    let misspelt = orders(table()).param_as::<u64>("order");
    let too_late = orders(table().param_as::<u64>("id")).param("id", |_| "x");
    for (table, name) in [(misspelt, "order"), (too_late, "id")] {
        let router = routes().route_layer(table);
        let why = format!("`.param(\"{name}\", ..)`");
        is_refused(&router, URI, &why).await;
        // It has no entry.
        let response = send(&router, Method::GET, "/orders/7").await;
        assert_eq!(text(response).await, "unlocked");
    }
    // An entry that takes it can come later.
    let mended = reports(orders(table().param_as::<u64>("id")).param("id", |_| "x"));
    assert_eq!(lock_of(&mended, "/reports/9").await, "report:rebuild:x");
}

#[tokio::test]
async fn a_param_that_no_route_of_a_router_takes_is_a_mistake() {
    let locked = |table: RouteLocks| -> Router {
        let locked: LockedRouter = table.router().unwrap();
        let added = locked.route(PROCESS, routing::post(name), TEMPLATE, NOW);
        added.unwrap().into_router()
    };
    let router = locked(table().param_as::<u64>("id"));
    assert_eq!(text(post(&router, "/orders/07/process").await).await, NAME);
    let router = locked(table().param_as::<u64>("order"));
    is_refused(&router, URI, "`.param(\"order\", ..)`").await;
    // As part of another router too, and nothing is wrong with one that has no routes yet.
    let locked: LockedRouter = table().param("id", |_| 7).router().unwrap();
    let _: Router = Router::new().merge(locked);
}

#[tokio::test]
async fn settings_of_a_table_are_for_the_entries_before_them() {
    let locks = Locks::new();
    let table = orders(RouteLocks::new(locks.provider.clone()))
        .status(LockErrorKind::Contended, StatusCode::LOCKED)
        .on_rejection(|rejection| {
            let mut response = rejection.to_response();
            response.headers_mut().insert("x-ours", 1.into());
            response
        });
    let _held = locks.take(NAME).await;
    let refused = post(&routes().route_layer(table), URI).await;
    assert_eq!(refused.status(), StatusCode::LOCKED);
    assert_eq!(refused.headers()["x-ours"], "1");
}

#[tokio::test(start_paused = true)]
async fn a_wait_counts_before_and_after_a_policy() {
    let locks = Locks::new();
    let _held = locks.take(NAME).await;
    let (wait, policy) = (Duration::from_secs(1), LockPolicy::long_operation());
    let layer = || LockLayer::new(locks.provider.clone(), TEMPLATE).unwrap();
    for layer in [
        layer().wait(wait).policy(policy),
        layer().policy(policy).wait(wait),
    ] {
        let router = Router::new().route(PROCESS, routing::post(name).route_layer(layer));
        let asked = Instant::now();
        assert_eq!(post(&router, URI).await.status(), StatusCode::CONFLICT);
        assert_eq!(asked.elapsed().as_secs(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bound_of_the_hold_counts_before_and_after_a_policy() {
    let bound = Duration::from_secs(60);
    let layer = || Locks::new().layer(TEMPLATE);
    for layer in [
        layer().max_hold(bound).policy(NOW),
        layer().policy(NOW).max_hold(bound),
    ] {
        let hung = routing::post(pending::<()>).route_layer(layer);
        let began = Instant::now();
        let response = post(&Router::new().route(PROCESS, hung), URI).await;
        assert_eq!(json(response).await["reason"], "lock-lost");
        assert_eq!(began.elapsed().as_secs(), 60);
    }
}

#[tokio::test]
async fn a_param_beside_a_key_is_a_mistake() {
    let layer = || Locks::new().layer(TEMPLATE);
    for layer in [
        layer().key(|_| NAME).param("id", |_| "x"),
        layer().param("id", |_| "x").key(|_| NAME),
        layer().key(|_| NAME).param_as::<u64>("id"),
    ] {
        let router = Router::new().route(PROCESS, routing::post(name).route_layer(layer));
        is_refused(&router, URI, "`.key(..)` makes the whole name").await;
    }
}
