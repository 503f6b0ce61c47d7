//! A server that becomes one that only reads, and leaves its connections open.

use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_core::{LockProvider, LossReason};
use lock_tests::servers::PostgresServer;
use lock_tests::{Lateness, Log};
use sqlx::Executor;

use crate::support::{LEASE, PATIENCE, numbered, order, take};

/// As a server of a cluster that shares its disk: its sessions live on, and it says of itself that it is in
/// recovery. PostgreSQL itself only does so after a restart, so the function that says it is another one.
const CAN_TURN: &str = "\
CREATE TABLE public.turned ();
GRANT SELECT ON public.turned TO PUBLIC;
ALTER FUNCTION pg_catalog.pg_is_in_recovery() RENAME TO pg_was_in_recovery;
CREATE FUNCTION pg_catalog.pg_is_in_recovery() RETURNS boolean LANGUAGE sql VOLATILE
    AS 'SELECT count(*) > 0 FROM public.turned';";

const TURN: &str = "INSERT INTO public.turned DEFAULT VALUES";

async fn server_that_can_turn() -> PostgresServer {
    let server = PostgresServer::start().await;
    server.pool().await.execute(CAN_TURN).await.unwrap();
    server
}

async fn client(server: &PostgresServer) -> LockProvider {
    let builder = PostgresBackend::builder(server.url()).lease(LEASE);
    LockProvider::new(builder.connect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_session_on_a_server_that_only_reads_now_is_lost_at_the_next_heartbeat() {
    let log = Log::of_process();
    let server = server_that_can_turn().await;
    let locks = client(&server).await;
    let guard = take(&locks, order()).await;
    server.pool().await.execute(TURN).await.unwrap();
    let late = Lateness::of(LEASE / 3);
    let lost = guard.lost().await;
    late.at_most(Duration::from_millis(500)).await;
    assert_eq!(lost, LossReason::ReadOnly);
    assert!(guard.release().await.unwrap_err().is_lost());
    let reason = "the server that kept it only reads now";
    assert!(log.text().contains(reason), "{}", log.text());
    // And it grants no more.
    let error = locks.acquire(order(), Duration::from_secs(1)).await;
    let error = error.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("standby"), "{error}");
    let back = "TRUNCATE public.turned";
    server.pool().await.execute(back).await.unwrap();
    drop(locks.acquire(order(), PATIENCE).await.unwrap());
}

/// Statements that prove the session are no look at the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_session_on_a_server_that_only_reads_now_is_lost_as_well() {
    let server = server_that_can_turn().await;
    let locks = client(&server).await;
    let guard = take(&locks, order()).await;
    let busy = locks.clone();
    let busy = tokio::spawn(async move {
        for number in 0.. {
            let lock = busy.acquire(numbered(number), PATIENCE).await;
            let Ok(guard) = lock else { return };
            drop(guard);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    tokio::time::sleep(LEASE).await;
    assert!(guard.is_valid());
    server.pool().await.execute(TURN).await.unwrap();
    let late = Lateness::of(LEASE / 3);
    assert_eq!(guard.lost().await, LossReason::ReadOnly);
    late.at_most(Duration::from_millis(500)).await;
    busy.abort();
}
