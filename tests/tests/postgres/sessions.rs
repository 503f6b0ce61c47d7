//! One session for each process, which it does not share.

use std::time::Duration;

use lock_core::LockProvider;
use lock_core::postgres::PostgresBackend;
use lock_tests::{PostgresStore, Store, eventually, is_held};
use sqlx::postgres::PgPoolOptions;

use crate::support::{LEASE, order, take};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_it_is_made_from_is_left_alone() {
    let store = PostgresStore::open().await;
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect(&store.server.url()).await.unwrap();
    // The one connection is in use all the time.
    let mut connection = pool.acquire().await.unwrap();
    let client = LockProvider::new(PostgresBackend::from_pool(&pool).await.unwrap());
    let guard = take(&client, order()).await;
    let other = store.client().await;
    assert!(is_held(&other, order()).await);
    let own = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    );
    assert_eq!(own.fetch_one(&mut *connection).await.unwrap(), 0);
    // That of a check at the start ends by itself.
    eventually("each has one session", || async {
        store.sessions().await == 2
    })
    .await;
    drop(connection);
    pool.close().await;
    tokio::time::sleep(LEASE).await;
    assert!(guard.is_valid(), "the end of the pool is nothing to it");
    guard.release().await.unwrap();
}

#[tokio::test]
async fn the_servers_own_limit_for_idle_sessions_does_not_take_the_lock() {
    let store = PostgresStore::open().await;
    store
        .server
        .set("idle_session_timeout", "2s")
        .await
        .unwrap();
    // Its heartbeats are further apart.
    let locks = LockProvider::new(store.long_lived().await);
    let guard = take(&locks, order()).await;
    guard
        .protect(tokio::time::sleep(Duration::from_secs(4)))
        .await
        .unwrap();
    guard.release().await.unwrap();
}
