//! Servers of records that go away while a handler is at work.

use lock_core::LockProvider;
use lock_core::memory::MemoryBackend;
use lock_core::postgres::PostgresBackend;
use lock_idempotency::{IdempotencyStore, PostgresStore, RedisStore};
use lock_tests::servers::{PostgresServer, RedisServer, Server};
use lock_tests::{Log, eventually};
use reqwest::StatusCode;

use crate::store_in::{Shop, is_replay, send};
use crate::support::{Answer, Service, layer_over};

/// The client has the answer of work that was done; the log says that it is not known any more, and a retry
/// does the work again.
async fn a_store_that_dies_beside_a_handler_costs_the_record(
    server: &impl Server,
    store: impl IdempotencyStore,
) {
    let log = Log::of_process();
    let locks = LockProvider::new(MemoryBackend::new());
    let service = Service::start(layer_over(locks, store)).await;
    let first = tokio::spawn(Answer::of(service.payment().header("x-wait", "1")));
    service.begun().await;
    server.kill().await;
    service.shop.go.add_permits(1);
    assert_eq!(first.await.unwrap().status, 201);
    assert_eq!(log.count("a response could not be stored"), 1);
    let refused = Answer::of(service.payment()).await;
    assert_eq!(
        (refused.status, &*refused.reason(), service.runs()),
        (503, "idempotency-store-unavailable", 1)
    );
    server.restart().await;
    eventually("the store is back", || async {
        Answer::of(service.payment()).await.is_replay()
    })
    .await;
    assert_eq!(service.runs(), 2);
}

#[tokio::test]
async fn postgres_that_dies_beside_a_handler_costs_the_record() {
    let server = PostgresServer::start().await;
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    a_store_that_dies_beside_a_handler_costs_the_record(&server, store).await;
}

#[tokio::test]
async fn redis_that_dies_beside_a_handler_costs_the_record() {
    let server = RedisServer::start().await;
    let store = RedisStore::connect(&server.url()).await.unwrap();
    a_store_that_dies_beside_a_handler_costs_the_record(&server, store).await;
}

#[tokio::test]
async fn a_lock_that_postgres_takes_away_stores_nothing() {
    let server = PostgresServer::start().await;
    let locks = LockProvider::new(PostgresBackend::connect(&server.url()).await.unwrap());
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    let service = Service::start(layer_over(locks, store)).await;
    let first = tokio::spawn(Answer::of(service.payment().header("x-wait", "1")));
    service.begun().await;
    server.terminate_backends("distributed_lock").await;
    let lost = first.await.unwrap();
    assert_eq!((lost.status, &*lost.reason()), (500, "lock-lost"));
    // A handler that would go on now would store.
    service.shop.go.add_permits(1);
    eventually("the locks are back", || async {
        let next = Answer::of(service.payment()).await;
        assert!(!next.is_replay() || service.runs() == 2, "{next:?}");
        next.is_replay()
    })
    .await;
    assert_eq!(service.runs(), 2);
}

#[tokio::test]
async fn postgres_that_dies_before_store_in_undoes_the_effect() {
    let server = PostgresServer::start().await;
    let shop = Shop::open(&server.url()).await;
    let app = shop.instance();
    let first = send(&app, "a", &["x-both", "x-both"], "x");
    let dies = async {
        // The handler has its effect, and stands before the record.
        shop.both.wait().await;
        server.kill().await;
        shop.both.wait().await;
    };
    let (first, ()) = tokio::join!(first, dies);
    assert_eq!(first.status(), StatusCode::SERVICE_UNAVAILABLE);
    server.restart().await;
    eventually("the database is back", || async {
        send(&app, "a", &[], "x").await.status() == StatusCode::CREATED
    })
    .await;
    assert_eq!(shop.paid().await, 1);
    assert!(is_replay(&send(&app, "a", &[], "x").await));
}
