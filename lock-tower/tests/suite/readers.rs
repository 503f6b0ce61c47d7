//! Requests that read together, and those that change what they read.

use std::time::Duration;

use axum::{Router, routing};
use http::{Method, StatusCode};
use lock_core::{LocalLock, LockError, LockPolicy, LockProvider, LockTemplate};
use lock_tower::{LockLayer, RouteLocks};
use tokio::task::JoinHandle;

use crate::support::{Locks, Log, Work, eventually, json, send};

const CATALOG: &str = "/catalogs/{id}";
const READ: &str = "catalog:read:<id>";
const URI: &str = "/catalogs/7";
const WAIT: Duration = Duration::from_secs(60);

/// A service whose GETs read, and whose POSTs write.
struct Shop {
    locks: Locks,
    router: Router,
    reads: Work,
    writes: Work,
}

impl Shop {
    fn of_layers(wait: Duration) -> Self {
        Self::new(|locks, reads, writes| {
            let layer = || locks.layer(READ).wait(wait);
            let routes = routing::get(reads.handler()).route_layer(layer().shared());
            let routes = routes.merge(routing::post(writes.handler()).route_layer(layer()));
            Router::new().route(CATALOG, routes)
        })
    }

    fn of_a_table(wait: Duration) -> Self {
        Self::new(|locks, reads, writes| {
            let template = LockTemplate::parse(READ).unwrap();
            let table = RouteLocks::new(locks.provider.clone())
                .route(Method::GET, CATALOG, template.clone().shared(), wait)
                .and_then(|table| table.route(Method::POST, CATALOG, template, wait));
            let routes = routing::get(reads.handler()).post(writes.handler());
            Router::new()
                .route(CATALOG, routes)
                .route_layer(table.unwrap())
        })
    }

    fn new(router: impl FnOnce(&Locks, &Work, &Work) -> Router) -> Self {
        let (locks, reads, writes) = (Locks::new(), Work::new(), Work::new());
        let router = router(&locks, &reads, &writes);
        Self {
            locks,
            router,
            reads,
            writes,
        }
    }

    fn send(&self, method: Method) -> JoinHandle<StatusCode> {
        let router = self.router.clone();
        tokio::spawn(async move { send(&router, method, URI).await.status() })
    }

    /// How many requests wait for their lock.
    fn waiting(&self) -> usize {
        let activity = self.locks.provider.activity();
        activity.locks().iter().map(LocalLock::waiting).sum()
    }
}

async fn a_write_waits_for_the_reads_and_is_not_overtaken(shop: Shop) {
    let readers = [(); 3].map(|()| shop.send(Method::GET));
    shop.reads.has_begun(3).await;
    let writer = shop.send(Method::POST);
    eventually("the write waits", || shop.waiting() == 1).await;
    let late = shop.send(Method::GET);
    eventually("the late read waits", || shop.waiting() == 2).await;
    assert_eq!((shop.reads.begun(), shop.writes.begun()), (3, 0));
    for (ended, reader) in (1..).zip(readers) {
        shop.reads.let_end();
        assert_eq!(reader.await.unwrap(), StatusCode::OK);
        assert!(ended == 3 || shop.writes.begun() == 0, "beside a read");
    }
    shop.writes.has_begun(1).await;
    assert_eq!(shop.reads.begun(), 3, "beside the write");
    shop.writes.let_end();
    assert_eq!(writer.await.unwrap(), StatusCode::OK);
    shop.reads.has_begun(4).await;
    shop.reads.let_end();
    assert_eq!(late.await.unwrap(), StatusCode::OK);
    shop.locks.all_free().await;
}

#[tokio::test]
async fn a_layer_lets_reads_run_together_and_a_write_alone_in_the_order_of_their_coming() {
    a_write_waits_for_the_reads_and_is_not_overtaken(Shop::of_layers(WAIT)).await;
}

#[tokio::test]
async fn a_table_has_readers_where_its_template_is_shared() {
    a_write_waits_for_the_reads_and_is_not_overtaken(Shop::of_a_table(WAIT)).await;
}

async fn each_is_refused_by_the_other(shop: Shop) {
    for (inside, work, refused) in [
        (Method::GET, &shop.reads, Method::POST),
        (Method::POST, &shop.writes, Method::GET),
    ] {
        let request = shop.send(inside);
        work.has_begun(1).await;
        let response = send(&shop.router, refused, URI).await;
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert!(response.headers().contains_key("retry-after"));
        let problem = json(response).await;
        assert_eq!(problem["lock"], READ);
        assert_eq!(problem["reason"], "lock-contended");
        work.let_end();
        assert_eq!(request.await.unwrap(), StatusCode::OK);
    }
}

#[tokio::test]
async fn reads_are_refused_while_a_write_runs_and_a_write_while_reads_do() {
    each_is_refused_by_the_other(Shop::of_layers(Duration::ZERO)).await;
    each_is_refused_by_the_other(Shop::of_a_table(Duration::ZERO)).await;
}

#[tokio::test]
async fn an_answer_can_name_a_reader() {
    let locks = Locks::new();
    let other = locks.store.clone().with_instance("10.0.0.5:8080").unwrap();
    let read = LockProvider::new(other)
        .lock("catalog:read:7")
        .unwrap()
        .shared();
    let _held = read.acquire(Duration::ZERO).await.unwrap();
    let layer = locks.layer(READ).name_holder();
    let service = routing::post(async || "done").route_layer(layer);
    let router = Router::new().route(CATALOG, service);
    let response = send(&router, Method::POST, URI).await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    assert_eq!(json(response).await["holder"], "10.0.0.5:8080");
}

/// Known when the template or the table is made, or at the first request.
#[tokio::test]
async fn readers_with_permits_or_a_lock_that_is_kept_are_mistakes() {
    let locks = Locks::new();
    let template = LockTemplate::parse(READ).unwrap();
    let both = [
        template.clone().shared().permits(2),
        template.clone().permits(2).shared(),
    ];
    let is_mistake = |error: LockError| assert!(error.is_misconfigured(), "{error}");
    for both in both {
        is_mistake(LockLayer::new(locks.provider.clone(), both.clone()).unwrap_err());
        let table = RouteLocks::new(locks.provider.clone());
        let policy = LockPolicy::user_request();
        is_mistake(table.route(Method::GET, CATALOG, both, policy).unwrap_err());
    }
    let kept = LockPolicy::user_request().with_at_least(Duration::from_secs(1));
    let table = RouteLocks::new(locks.provider.clone());
    is_mistake(table.any(CATALOG, template.shared(), kept).unwrap_err());

    let second = Duration::from_secs(1);
    for layer in [
        locks.layer(READ).shared().permits(2),
        locks.layer(READ).permits(2).shared(),
        locks.layer(READ).shared().at_least(second),
        locks.layer(READ).at_least(second).shared(),
        locks.layer(READ).shared().policy(kept),
        locks.layer(READ).policy(kept).shared(),
    ] {
        let (log, _captured) = Log::capture();
        let work = Work::new();
        let routes = routing::get(work.handler()).route_layer(layer);
        let router = Router::new().route(CATALOG, routes);
        let response = send(&router, Method::GET, URI).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!log.lines("shared").is_empty());
        assert_eq!(work.begun(), 0);
    }
}

#[tokio::test]
async fn shared_and_the_other_setters_go_together_in_any_order() {
    for is_first in [true, false] {
        let (locks, work) = (Locks::new(), Work::new());
        let layer = locks.layer(READ);
        let policy = LockPolicy::background_job();
        let layer = match is_first {
            true => layer.shared().policy(policy).max_hold(WAIT),
            false => layer.max_hold(WAIT).policy(policy).shared(),
        };
        let routes = routing::get(work.handler()).route_layer(layer);
        let router = Router::new().route(CATALOG, routes);
        let requests = [(); 2].map(|()| {
            let router = router.clone();
            tokio::spawn(async move { send(&router, Method::GET, URI).await.status() })
        });
        work.has_begun(2).await;
        work.let_end();
        work.let_end();
        for request in requests {
            assert_eq!(request.await.unwrap(), StatusCode::OK);
        }
    }
}
