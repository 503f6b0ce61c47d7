//! Behind Pgpool-II, which gives each client a session of its own, and where there are standbys sends them
//! what only reads.

use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_tests::servers::{Pgpool, PostgresServer};
use sqlx::{Executor, PgPool};

use crate::support::{LEASE, PATIENCE, client, order, take};

/// A hold that outlives its lease, a wait, a hand-over, a token, a loss and the return.
async fn locks_work(pgpool: &Pgpool, pool: &PgPool) {
    let url = pgpool.url_for("app");
    let (one, other) = (client(&url).await, client(&url).await);
    let guard = take(&one, order()).await;
    guard.fencing_token().await.unwrap();
    tokio::time::sleep(LEASE + LEASE / 4).await;
    assert!(guard.is_valid());
    let lock = other.lock(order()).unwrap();
    assert!(lock.try_acquire(Duration::ZERO).await.unwrap().is_none());
    let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    guard.release().await.unwrap();
    let lost = waiting.await.unwrap().unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    pool.execute(end).await.unwrap();
    lost.lost().await;
    let back = other.lock(order()).unwrap();
    let back = back.acquire(PATIENCE).await.unwrap();
    back.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_work_behind_a_pgpool_with_the_primary_alone() {
    let server = PostgresServer::start().await;
    let pgpool = Pgpool::over(&[&server], &[]).await;
    locks_work(&pgpool, &server.pool().await).await;
}

/// Each session is given one of the servers for what only reads, by chance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_work_behind_a_pgpool_that_balances() {
    let primary = PostgresServer::start().await;
    let standby = primary.standby().await;
    let pgpool = Pgpool::over(&[&primary, &standby], &[]).await;
    let pool = primary.pool().await;
    for _ in 0..4 {
        locks_work(&pgpool, &pool).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pgpool_that_sends_locks_to_a_standby_is_refused_by_name() {
    let primary = PostgresServer::start().await;
    let standby = primary.standby().await;
    // All functions only read, by its settings, and it chooses anew for each statement.
    let settings = [
        ("read_only_function_list", ".*"),
        ("write_function_list", ""),
        ("backend_weight0", "0"),
    ];
    let pgpool = Pgpool::over(&[&primary, &standby], &settings).await;
    let error = PostgresBackend::connect(&pgpool.url_for("app"))
        .await
        .unwrap_err();
    assert!(error.is_misconfigured(), "{error:?}");
    assert!(error.to_string().contains("Pgpool-II"), "{error:?}");
}
