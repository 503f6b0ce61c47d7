//! What a crowd of waiters costs the server: connections, registrations, statements.

use std::time::Duration;

use lock_core::postgres::PostgresBuilder;
use lock_core::{LockName, LockProvider};
use lock_tests::servers::{PostgresServer, Server};
use lock_tests::{PostgresStore, Store, eventually};
use tokio::task::JoinSet;

use crate::support::{builder, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_waiters_cost_one_connection_and_few_registrations() {
    const NAMES: usize = 10_000;
    let store = PostgresStore::open().await;
    let (holder, waiter) = (store.client().await, store.client().await);
    let names: Vec<LockName> = (0..NAMES).map(numbered).collect();
    let guards = holder.claim(names.clone(), NAMES).await.unwrap();
    assert_eq!(guards.len(), NAMES);
    let mut waits = JoinSet::new();
    for name in names {
        let lock = waiter.lock(name).unwrap();
        waits.spawn(async move { lock.acquire(Duration::from_secs(60)).await.map(drop) });
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
    const SECONDS: usize = 5;
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
    // All are registered, and the fallback has come to its pace.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = statements();
    assert!(before > 0, "statements are logged");
    tokio::time::sleep(Duration::from_secs(SECONDS as u64)).await;
    let sent = statements() - before;
    assert!(
        0 < sent && sent <= 6 * SECONDS,
        "{sent} in {SECONDS} seconds"
    );
    waits.abort_all();
}
