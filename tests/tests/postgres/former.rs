//! The session that a process has lost is ended by that process, and nothing is in the way of a new
//! one.

use std::time::Duration;

use lock_core::LockProvider;
use lock_core::postgres::PostgresBackend;
use lock_tests::servers::PostgresServer;
use lock_tests::{Log, PostgresStore, Store, eventually};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

use crate::ghost::Ghost;
use crate::network::Network;
use crate::support::{PATIENCE, acquire, backend, client, order, take};

/// A role that becomes another one as it logs in, which may not end sessions of the first.
async fn app_becomes_another(pool: &PgPool) {
    let become_other = "CREATE ROLE owner; GRANT owner TO app; ALTER ROLE app SET role = owner";
    pool.execute(become_other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_becomes_another_ends_the_session_that_it_left() {
    let server = PostgresServer::start().await;
    app_becomes_another(&server.pool().await).await;
    let network = Network::half_open(&server).await;
    // Longer than the test: what the lease ends is ended by nothing else.
    let url = network.url(&server.url_for("app", "postgres"));
    let long = PostgresBackend::builder(url).lease(Duration::from_secs(600));
    let holder = LockProvider::new(long.connect().await.unwrap());
    let guard = take(&holder, order()).await;
    network.lose();
    guard.lost().await;
    drop(acquire(&holder, order(), PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_becomes_another_ends_sessions_that_stand_still() {
    let store = PostgresStore::open().await;
    app_becomes_another(&store.pool).await;
    let mut ghost = Ghost::holding_as(
        "app",
        &store.server,
        "distributed_lock",
        "lease 2000",
        &order(),
    )
    .await;
    ghost.stop_inside_a_statement().await;
    let waiter = client(&store.server.url_for("app", "postgres")).await;
    drop(acquire(&waiter, order(), PATIENCE).await);
}

/// A process comes back after its session was ended, whatever it may not do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_recovery_needs_is_told_at_connect_and_never_keeps_a_process_from_a_new_session()
{
    let log = Log::of_process();
    for line in [
        "EXECUTE ON FUNCTION pg_catalog.pg_terminate_backend(integer, bigint)",
        "SELECT ON pg_catalog.pg_locks",
        "SELECT ON pg_catalog.pg_stat_activity",
    ] {
        let server = PostgresServer::start().await;
        let revoke = AssertSqlSafe(format!("REVOKE {line} FROM PUBLIC"));
        server.pool().await.execute(revoke).await.unwrap();
        let holder = client(&server.url_for("app", "postgres")).await;
        let grant = format!("GRANT {line} TO app;");
        assert_eq!(log.count(&grant), 1, "{}", log.text());
        for _ in 0..2 {
            let guard = acquire(&holder, order(), PATIENCE).await;
            assert!(server.terminate_backends("distributed_lock").await >= 1);
            guard.lost().await;
            drop(acquire(&holder, order(), PATIENCE).await);
        }
    }
}

/// The keys of all sessions can be read by all roles of the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_that_hold_the_key_of_a_session_are_left_alone() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let prepare = "CREATE ROLE neighbour LOGIN";
    pool.execute(prepare).await.unwrap();
    pool.execute("CREATE DATABASE elsewhere TEMPLATE template0")
        .await
        .unwrap();
    let holder = LockProvider::new(backend(&server.url_for("app", "postgres")).await);
    let mut neighbours = Vec::new();
    for (role, database) in [
        ("neighbour", "elsewhere"),
        ("neighbour", "postgres"),
        ("app", "elsewhere"),
    ] {
        let url = format!(
            "{}?application_name=distributed_lock",
            server.url_for(role, database)
        );
        let mut neighbour = PgConnection::connect(&url).await.unwrap();
        let take = "SELECT pg_try_advisory_lock_shared( \
               classid::bigint::bit(32)::int, objid::bigint::bit(32)::int) \
             FROM (SELECT DISTINCT classid, objid FROM pg_locks WHERE objsubid = 2) AS keys";
        neighbour.execute(take).await.unwrap();
        neighbours.push(neighbour);
    }
    let guard = take(&holder, order()).await;
    // Another session than the neighbours': theirs have the same name.
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE usename = 'app' AND datname = 'postgres'";
    pool.execute(ended).await.unwrap();
    guard.lost().await;
    drop(acquire(&holder, order(), PATIENCE).await);
    for neighbour in &mut neighbours {
        neighbour.execute("SELECT 1").await.unwrap();
    }
    eventually("there is one session of ours", || async {
        let ours = "SELECT count(*) FROM pg_stat_activity \
             WHERE usename = 'app' AND datname = 'postgres'";
        sqlx::query_scalar::<_, i64>(ours)
            .fetch_one(&pool)
            .await
            .unwrap()
            == 1
    })
    .await;
}
