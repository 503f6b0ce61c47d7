//! Locks that several requests hold at a time, and locks that are kept.

use std::time::Duration;

use axum::{Router, routing};
use http::{Method, StatusCode};
use lock_core::{LockPolicy, LockTemplate};
use lock_tower::{LockLayer, RouteLocks};

use crate::support::{Locks, Log, PROCESS, TEMPLATE, URI, Work, json, post};

fn router(layer: LockLayer, work: &Work) -> Router {
    Router::new().route(PROCESS, routing::post(work.handler()).route_layer(layer))
}

/// Two requests are inside, the third is refused, and served once one has ended.
async fn two_are_served_at_a_time(locks: &Locks, router: &Router, work: &Work) {
    let send = || {
        let router = router.clone();
        tokio::spawn(async move { post(&router, URI).await.status() })
    };
    let inside = [send(), send()];
    work.has_begun(2).await;
    let refused = post(router, URI).await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    let problem = json(refused).await;
    assert_eq!(problem["lock"], TEMPLATE);
    assert_eq!(problem["reason"], "lock-contended");
    assert_eq!(locks.store.held(), 2);
    work.let_end();
    work.let_end();
    for request in inside {
        assert_eq!(request.await.unwrap(), StatusCode::OK);
    }
    let next = send();
    work.has_begun(3).await;
    work.let_end();
    assert_eq!(next.await.unwrap(), StatusCode::OK);
    assert_eq!(locks.store.held(), 0);
}

#[tokio::test]
async fn a_layer_lets_as_many_requests_in_as_it_has_permits() {
    let (locks, work) = (Locks::new(), Work::new());
    let router = router(locks.layer(TEMPLATE).permits(2), &work);
    two_are_served_at_a_time(&locks, &router, &work).await;
}

#[tokio::test]
async fn a_table_has_the_permits_of_its_templates() {
    let (locks, work) = (Locks::new(), Work::new());
    let template = LockTemplate::parse(TEMPLATE).unwrap().permits(2);
    let table = RouteLocks::new(locks.provider.clone())
        .route(
            Method::POST,
            PROCESS,
            template,
            LockPolicy::background_job(),
        )
        .unwrap();
    let router = Router::new()
        .route(PROCESS, routing::post(work.handler()))
        .route_layer(table);
    two_are_served_at_a_time(&locks, &router, &work).await;
}

/// In the template it is an error of the setup, on the layer one of each request.
#[tokio::test]
async fn a_number_of_permits_that_cannot_be_is_a_mistake() {
    let locks = Locks::new();
    for number in [0, 257] {
        let template = LockTemplate::parse(TEMPLATE).unwrap().permits(number);
        let layer = LockLayer::new(locks.provider.clone(), template.clone());
        assert!(layer.unwrap_err().is_misconfigured());
        let table = RouteLocks::new(locks.provider.clone());
        let table = table.route(Method::POST, PROCESS, template, LockPolicy::user_request());
        assert!(table.unwrap_err().is_misconfigured());

        let (log, _captured) = Log::capture();
        let work = Work::new();
        let router = router(locks.layer(TEMPLATE).permits(number), &work);
        let response = post(&router, URI).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!log.lines("permits").is_empty());
        assert_eq!(work.begun(), 0);
    }
}

/// The response does not wait for that.
#[tokio::test(start_paused = true)]
async fn a_layer_keeps_its_lock_at_least_so_long() {
    const KEPT: Duration = Duration::from_secs(50);
    let (locks, work) = (Locks::new(), Work::new());
    let router = router(locks.layer(TEMPLATE).at_least(KEPT), &work);
    work.let_end();
    let since = tokio::time::Instant::now();
    assert_eq!(post(&router, URI).await.status(), StatusCode::OK);
    assert!(since.elapsed() < KEPT);
    assert_eq!(post(&router, URI).await.status(), StatusCode::CONFLICT);
    // Later than that by a moment: which of two timers of one time fires first is not said.
    tokio::time::sleep(KEPT + Duration::from_secs(1)).await;
    work.let_end();
    assert_eq!(post(&router, URI).await.status(), StatusCode::OK);
}

#[test]
fn a_table_refuses_a_policy_that_keeps_longer_than_it_holds() {
    let policy = LockPolicy::background_job()
        .with_max_hold(Duration::from_secs(1))
        .with_at_least(Duration::from_secs(2));
    let table = RouteLocks::new(Locks::new().provider);
    let table = table.route(Method::POST, PROCESS, TEMPLATE, policy);
    let error = table.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn at_least_and_policy_go_together_in_either_order() {
    const KEPT: Duration = Duration::from_secs(50);
    let policy = LockPolicy::background_job();
    for is_first in [true, false] {
        let (locks, work) = (Locks::new(), Work::new());
        let layer = locks.layer(TEMPLATE);
        let layer = match is_first {
            true => layer.at_least(KEPT).policy(policy),
            false => layer.policy(policy).at_least(KEPT),
        };
        let router = router(layer, &work);
        work.let_end();
        assert_eq!(post(&router, URI).await.status(), StatusCode::OK);
        assert_eq!(post(&router, URI).await.status(), StatusCode::CONFLICT);
    }
}
