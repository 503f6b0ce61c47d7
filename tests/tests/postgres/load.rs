//! What a crowd of waiters costs the server: connections, registrations, statements.

use std::time::{Duration, Instant};

use lock_core::postgres::PostgresBuilder;
use lock_core::{LockName, LockProvider};
use lock_tests::servers::{PostgresServer, Server};
use lock_tests::{PostgresStore, Store, eventually};
use tokio::task::JoinSet;

use crate::support::{PATIENCE, builder, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_waiters_cost_one_connection_and_few_registrations() {
    const NAMES: usize = 10_000;
    let store = PostgresStore::open().await;
    // So many take a busy machine longer than a client waits for an answer, unless it is configured otherwise.
    let connect = async || {
        let client = LockProvider::builder(store.long_lived().await);
        client.response_timeout(PATIENCE).build()
    };
    let (holder, waiter) = (connect().await, connect().await);
    let names: Vec<LockName> = (0..NAMES).map(numbered).collect();
    let guards = holder.claim(names.clone(), NAMES).await.unwrap();
    assert_eq!(guards.len(), NAMES);
    let mut waits = JoinSet::new();
    for name in names {
        let lock = waiter.lock(name).unwrap();
        waits.spawn(async move { lock.acquire(PATIENCE * 4).await.map(drop) });
    }
    let held = i64::try_from(NAMES).unwrap();
    // 512 names, everything, and two markers.
    let most = held + 512 + 1 + 2;
    eventually("they wait", || async {
        store.advisory_locks().await == most
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.advisory_locks().await, most);
    assert_eq!(store.sessions().await, 2);
    drop(guards);
    while let Some(granted) = waits.join_next().await {
        granted.unwrap().unwrap();
    }
    assert_eq!(store.sessions().await, 2);
    eventually("nothing is left", || async {
        store.advisory_locks().await == 2
    })
    .await;
    drop((holder, waiter));
    eventually("the sessions end", || async { store.sessions().await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_waiters_send_six_statements_a_second_at_most() {
    let server =
        PostgresServer::with(&[("log_statement", "all"), ("log_parameter_max_length", "0")]).await;
    let connected =
        |builder: PostgresBuilder| async { LockProvider::new(builder.connect().await.unwrap()) };
    let holder = connected(builder(&server)).await;
    let waiter = connected(builder(&server).application_name("waiting")).await;
    let names: Vec<LockName> = (0..1_000).map(numbered).collect();
    let guards = holder.claim(names.clone(), 1_000).await.unwrap();
    assert_eq!(guards.len(), 1_000);
    let mut waits = JoinSet::new();
    for name in names {
        let lock = waiter.lock(name).unwrap();
        waits.spawn(async move { lock.acquire(Duration::from_secs(60)).await.map(drop) });
    }
    let statements = || {
        let log = server.log();
        let sent = log
            .lines()
            .filter(|line| line.contains(" waiting ") && line.contains(" LOG:  execute"));
        sent.count()
    };
    let pool = server.pool().await;
    eventually("all are registered", async || {
        let registered = "SELECT count(*) FROM pg_locks \
             WHERE locktype = 'advisory' AND objsubid = 1 AND mode = 'ShareLock'";
        let registered = sqlx::query_scalar::<_, i64>(registered);
        registered.fetch_one(&pool).await.unwrap() > 512
    })
    .await;
    // And the fallback has come to its pace.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (began, before) = (Instant::now(), statements());
    assert!(before > 0, "statements are logged");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let sent = statements() - before;
    let took = began.elapsed();
    let most = usize::try_from(6 * took.as_millis() / 1_000).unwrap();
    assert!((1..=most).contains(&sent), "{sent} in {took:?}");
    waits.abort_all();
}
