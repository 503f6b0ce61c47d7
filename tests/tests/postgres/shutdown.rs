//! What a shutdown leaves behind: nothing.

use std::time::Duration;

use lock_core::LockProvider;
use lock_core::postgres::PostgresBackend;
use lock_tests::servers::{PostgresServer, Server};
use lock_tests::{Lateness, PostgresStore, Store, eventually};
use sqlx::Executor;

use crate::support::{Harness, LEASE, ZERO, acquire, client, numbered, order, take};

/// Of a caller that waits for one answer.
const RESPONSE: Duration = Duration::from_secs(2);

/// How many threads of the library there are.
fn threads() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |thread: std::io::Result<std::fs::DirEntry>| {
        // One that has just ended has none.
        std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap_or_default()
    };
    threads
        .map(name)
        .filter(|name| name.starts_with("distributed-loc"))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_can_be_dropped_after_a_shutdown_although_the_provider_is_installed() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    pool.execute("CREATE DATABASE shop TEMPLATE template0")
        .await
        .unwrap();
    let url = server.url_for("postgres", "shop");
    let backend = PostgresBackend::builder(url).lease(LEASE);
    let backend = backend.connect().await.unwrap();
    let locks = LockProvider::new(backend.clone());
    locks.clone().install().unwrap();
    let kept = take(&locks, order()).await;
    let refused = pool.execute("DROP DATABASE shop").await;
    assert!(refused.unwrap_err().to_string().contains("being accessed"));
    locks.shutdown(Duration::from_millis(50)).await;
    let late = Lateness::of(Duration::ZERO);
    pool.execute("DROP DATABASE shop").await.unwrap();
    // PostgreSQL waits for up to 5 s for sessions that are about to end.
    late.at_most(Duration::from_secs(2)).await;
    assert!(!kept.is_valid());
    assert!(
        LockProvider::installed()
            .unwrap()
            .health()
            .await
            .error()
            .unwrap()
            .is_closed()
    );
    eventually("its threads end", async || threads() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_in_a_transaction_is_refused_after_the_shutdown_as_any_other() {
    let harness = Harness::new().await;
    let locks = LockProvider::new(harness.backend.clone());
    let mut tx = harness.begin().await;
    harness.lock(&mut tx, &order(), ZERO).await.unwrap();
    locks.shutdown(ZERO).await;
    let refused = harness.lock(&mut tx, &numbered(1), ZERO).await;
    assert!(refused.unwrap_err().is_closed());
    tx.commit().await.unwrap();
}

/// A statement is out that is not answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_beside_a_frozen_server_ends_and_leaves_no_session() {
    let store = PostgresStore::open().await;
    // Longer than all that is waited for.
    let backend = PostgresBackend::builder(store.server.url()).lease(Duration::from_secs(60));
    let client = LockProvider::new(backend.connect().await.unwrap());
    let guard = take(&client, order()).await;
    store.server.freeze().await;
    let late = Lateness::of(2 * RESPONSE);
    client.shutdown(Duration::from_millis(50)).await;
    late.at_most(Duration::from_secs(1)).await;
    assert!(!guard.is_valid());
    eventually("its threads end", async || threads() == 0).await;
    store.server.thaw().await;
    eventually("the session is gone", async || store.sessions().await == 0).await;
}

/// In each state of a driver that has no session: it is about to connect, connects, waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_while_a_session_is_made_anew_ends_that() {
    let server = PostgresServer::start().await;
    for pause in [0, 5, 50, 500, 1_500] {
        let client = client(&server.url()).await;
        let guard = take(&client, order()).await;
        server.stop().await;
        guard.lost().await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let late = Lateness::of(RESPONSE);
        client.shutdown(Duration::from_millis(50)).await;
        late.at_most(Duration::ZERO).await;
        eventually("its threads end", async || threads() == 0).await;
        server.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_that_are_under_way_are_done_before_the_session_is_closed() {
    let store = PostgresStore::open().await;
    let (here, there) = (store.client().await, store.client().await);
    for round in 0..20 {
        let mut guards = Vec::new();
        for number in 0..50 {
            guards.push(take(&here, numbered(round * 50 + number)).await);
        }
        drop(guards);
        let here = LockProvider::new(store.backend().await);
        let guard = take(&here, numbered(10_000 + round)).await;
        drop(guard);
        here.shutdown(Duration::from_secs(5)).await;
        drop(acquire(&there, numbered(10_000 + round), ZERO).await);
    }
}
