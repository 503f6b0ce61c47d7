//! One session for each process, which is nobody else's.

use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_core::{LockName, LockProvider};
use lock_tests::{PostgresStore, Store, eventually};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Executor, Row};
use tokio::task::JoinSet;

use crate::support::{LONG, ZERO};

#[tokio::test]
async fn a_process_has_one_connection_whatever_it_holds_and_waits_for() {
    let store = PostgresStore::open().await;
    let (here, there) = (store.client().await, store.client().await);
    let mut guards = Vec::new();
    for id in 0..100 {
        let lock = here.lock(LockName::new("order", "process", id).unwrap());
        guards.push(lock.unwrap().acquire(ZERO).await.unwrap());
    }
    let mut waiting = JoinSet::new();
    for id in 0..100 {
        let lock = there
            .lock(LockName::new("order", "process", id).unwrap())
            .unwrap();
        waiting.spawn(async move { lock.acquire(LONG).await.unwrap() });
    }
    // Each of them is registered, and each session says its lease.
    eventually("they wait", || async {
        store.advisory_locks().await == 100 + 100 + 2
    })
    .await;
    assert_eq!(store.sessions().await, 2);
    drop(guards);
    assert_eq!(waiting.join_all().await.len(), 100);
    eventually("all is released", || async {
        store.advisory_locks().await == 2
    })
    .await;
    drop((here, there));
    eventually("the sessions end", || async { store.sessions().await == 0 }).await;
}

#[tokio::test]
async fn a_pool_gives_its_options_and_keeps_its_connections() {
    let store = PostgresStore::open().await;
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect(&store.server.url()).await.unwrap();
    let taken = pool.acquire().await.unwrap();
    let locks = LockProvider::new(PostgresBackend::from_pool(&pool).await.unwrap());
    let guard = locks
        .lock("order:process:42")
        .unwrap()
        .acquire(ZERO)
        .await
        .unwrap();
    drop(taken);
    pool.close().await;
    assert!(guard.is_valid());
    guard.release().await.unwrap();
}

#[tokio::test]
async fn the_servers_own_limit_for_idle_sessions_does_not_take_the_lock() {
    let store = PostgresStore::open().await;
    store
        .server
        .set("idle_session_timeout", "300ms")
        .await
        .unwrap();
    let locks = store.client().await;
    let guard = locks
        .lock("order:process:42")
        .unwrap()
        .acquire(ZERO)
        .await
        .unwrap();
    guard
        .protect(tokio::time::sleep(Duration::from_millis(1_500)))
        .await
        .unwrap();
    guard.release().await.unwrap();
}

#[tokio::test]
async fn namespaces_and_databases_are_apart() {
    let store = PostgresStore::open().await;
    store.pool.execute("CREATE DATABASE other").await.unwrap();
    let url = store.server.url();
    let other = store.server.url_for("postgres", "other");
    let mut guards = Vec::new();
    for builder in [
        PostgresBackend::builder(&url),
        PostgresBackend::builder(&url).namespace("shop"),
        PostgresBackend::builder(&url).namespace("Shop"),
        PostgresBackend::builder(&other),
    ] {
        let locks = LockProvider::new(builder.connect().await.unwrap());
        guards.push(
            locks
                .lock("order:process:42")
                .unwrap()
                .acquire(ZERO)
                .await
                .unwrap(),
        );
    }
    let again = PostgresBackend::builder(&url)
        .namespace("shop")
        .connect()
        .await
        .unwrap();
    let lock = LockProvider::new(again).lock("order:process:42").unwrap();
    assert!(lock.try_acquire(ZERO).await.unwrap().is_none());
}

#[tokio::test]
async fn operators_find_the_session_by_its_name_and_what_it_holds_by_its_key() {
    let store = PostgresStore::open().await;
    let builder = PostgresBackend::builder(store.server.url()).application_name("shop-locks");
    let locks = LockProvider::new(builder.connect().await.unwrap());
    let name: LockName = "order:process:42".parse().unwrap();
    let _guard = locks.lock(&name).unwrap().acquire(ZERO).await.unwrap();
    let held = sqlx::query(
        "SELECT a.state, current_database() FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) \
         WHERE locktype = 'advisory' AND objsubid = 1 AND application_name = 'shop-locks' \
         AND ((classid::int8 << 32) | objid::int8) = $1 AND mode = 'ExclusiveLock'",
    );
    // As it is documented, for the empty namespace.
    let held = held.bind(-4_392_062_105_972_231_254_i64);
    let row = held.fetch_one(&store.pool).await.unwrap();
    assert_eq!(row.get::<String, _>(0), "idle");
}
