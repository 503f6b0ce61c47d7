//! Names that a neighbour puts where the application looks for PostgreSQL's.

use std::time::Duration;

use lock_core::postgres::{Fence, PostgresBackend};
use lock_core::{FencingToken, LockName, LockProvider, LockSettings, ProviderKind};
use lock_tests::eventually;
use lock_tests::servers::{PgBouncer, PostgresServer};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

use crate::neighbour::Neighbour;
use crate::support::{PATIENCE, SHORT, ZERO, acquire, client, name, numbered, order, take};

const PATHS: [&str; 3] = [
    "neighbour, pg_catalog",
    "pg_catalog, neighbour",
    "\"$user\", neighbour",
];

/// A server with a neighbour, and `app` with this path and a schema for its fence.
async fn server() -> PostgresServer {
    let server = PostgresServer::start().await;
    let prepare = "CREATE SCHEMA billing AUTHORIZATION app";
    server.pool().await.execute(prepare).await.unwrap();
    server
}

async fn set_path(pool: &PgPool, path: &str) {
    let set = AssertSqlSafe(format!("ALTER ROLE app SET search_path = {path}"));
    pool.execute(set).await.unwrap();
}

/// That the net catches what the tests below show to be absent.
#[tokio::test]
async fn names_without_a_schema_are_the_neighbours() {
    let server = server().await;
    let neighbour = Neighbour::of(&server).await;
    let pool = server.pool().await;
    for (path, statement, what) in [
        (PATHS[0], "SELECT to_hex(5)", "to_hex"),
        (PATHS[0], "SELECT 1 = 1", "operator_"),
        (PATHS[0], "SELECT '1'::int8", "int8"),
        (PATHS[0], "SELECT FROM pg_locks", "pg_locks"),
        (PATHS[1], "SELECT 1.5 * 3", "pair_of"),
        (PATHS[1], "SELECT unnest(ARRAY[5::bigint])", "unnest"),
        (PATHS[2], "SELECT 5::bigint * interval '1 ms'", "pair_of"),
    ] {
        set_path(&pool, path).await;
        let mut app = PgConnection::connect(&server.url_for("app", "postgres"))
            .await
            .unwrap();
        // What the neighbour's answers are made of does not matter.
        let _ = app.execute(statement).await;
        let ran = neighbour.ran();
        assert!(
            ran.iter().any(|ran| ran.contains(what)),
            "{statement}: {ran:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_neighbours_runs_and_locks_lock() {
    let server = server().await;
    let neighbour = Neighbour::of(&server).await;
    let pool = server.pool().await;
    let pooler = PgBouncer::session(&server).await;
    let pooled = format!("postgres://app@{}/postgres", pooler.address());
    for path in PATHS {
        set_path(&pool, path).await;
        for url in [server.url_for("app", "postgres"), pooled.clone()] {
            let (holder, other) = (client(&url).await, client(&url).await);
            hold_and_hand_over(&holder, &other).await;
            // It comes back, and looks for its former session.
            let guard = take(&holder, order()).await;
            server.terminate_backends("distributed_lock").await;
            guard.lost().await;
            hold_and_hand_over(&holder, &other).await;
        }
        assert_eq!(neighbour.ran(), Default::default(), "with {path}");
    }
}

async fn hold_and_hand_over(holder: &LockProvider, other: &LockProvider) {
    let guard = acquire(holder, order(), PATIENCE).await;
    guard.fencing_token().await.unwrap();
    let (refused, refused_late) = (other.lock(order()).unwrap(), other.lock(order()).unwrap());
    assert!(refused.acquire(ZERO).await.unwrap_err().is_contended());
    // Long enough for several looks at sessions that stand still.
    let late = refused_late.acquire(Duration::from_millis(1_200)).await;
    assert!(late.unwrap_err().is_contended());
    let waiter = tokio::spawn(async move { refused.acquire(PATIENCE).await });
    guard.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
    let names: Vec<LockName> = (0..5).map(numbered).collect();
    let all = holder.acquire_all(names.clone(), PATIENCE).await.unwrap();
    assert_eq!(other.claim(names.clone(), 3).await.unwrap().len(), 0);
    all.release().await.unwrap();
    assert_eq!(other.claim(names, 3).await.unwrap().len(), 3);
    assert!(holder.health().await.is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_neighbours_runs_in_a_transaction_of_the_caller() {
    let server = server().await;
    let neighbour = Neighbour::of(&server).await;
    let looking = server.pool().await;
    let name = name("order:process:42");
    for (number, path) in PATHS.into_iter().enumerate() {
        set_path(&looking, path).await;
        let url = server.url_for("app", "postgres");
        let backend = PostgresBackend::connect(&url).await.unwrap();
        let pool = PgPoolOptions::new().connect(&url).await.unwrap();
        let (mut one, mut two) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
        backend
            .lock_in_transaction(&mut one, &name, ZERO)
            .await
            .unwrap();
        for wait in [ZERO, SHORT] {
            let refused = backend.lock_in_transaction(&mut two, &name, wait).await;
            assert!(refused.unwrap_err().is_contended());
        }
        let (waited, ended) = tokio::join!(
            backend.lock_in_transaction(&mut two, &name, PATIENCE),
            one.rollback()
        );
        waited.unwrap();
        ended.unwrap();

        let fence = Fence::new().schema("billing");
        fence.create_table(&pool).await.unwrap();
        fence.create_table(&mut *two).await.unwrap();
        let token = |token: usize| FencingToken::new(token.try_into().unwrap());
        fence
            .check(&mut two, &name, token(2 * number + 1))
            .await
            .unwrap();
        fence
            .check(&mut two, &name, token(2 * number + 2))
            .await
            .unwrap();
        let older = fence.check(&mut two, &name, token(2 * number + 1)).await;
        assert!(older.unwrap_err().is_lost());
        two.commit().await.unwrap();
        assert_eq!(neighbour.ran(), Default::default(), "with {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fleet_marker_sees_past_a_neighbours_names() {
    let server = server().await;
    let neighbour = Neighbour::of(&server).await;
    let pool = server.pool().await;
    let directory = tempfile::tempdir().unwrap();
    for path in PATHS {
        set_path(&pool, path).await;
        let url = server.url_for("app", "postgres");
        let in_postgres = LockSettings::new().database_url(&url);
        let in_files = LockSettings::new()
            .database_url(&url)
            .provider(ProviderKind::File)
            .dir(directory.path().join("locks"));
        let first = LockProvider::connect(in_postgres).await.unwrap();
        let refused = LockProvider::connect(in_files).await.unwrap_err();
        assert!(
            refused.to_string().contains("held by `postgres`"),
            "{refused}"
        );
        drop(first);
        eventually("its session ends", || async {
            let ours = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
            sqlx::query_scalar::<_, i64>(ours)
                .fetch_one(&pool)
                .await
                .unwrap()
                == 0
        })
        .await;
        assert_eq!(neighbour.ran(), Default::default(), "with {path}");
    }
}

/// Another client has that session next, and finds its own tables by it.
#[tokio::test]
async fn a_session_that_a_proxy_shares_is_left_as_it_was() {
    let server = PostgresServer::start().await;
    let shared = PgBouncer::transaction(&server).await;
    let url = format!("postgres://app@{}/postgres", shared.address());
    let error = PostgresBackend::connect(&url).await.unwrap_err();
    assert!(error.to_string().contains("transaction pooling"), "{error}");
    for setting in ["search_path", "role", "lock_timeout"] {
        let mut values = Vec::new();
        for url in [&url, &server.url_for("app", "postgres")] {
            let mut next = PgConnection::connect(url).await.unwrap();
            let show = sqlx::raw_sql(AssertSqlSafe(format!("SHOW {setting}")));
            let row = show.fetch_one(&mut next).await.unwrap();
            values.push(sqlx::Row::get::<String, _>(&row, 0));
        }
        assert_eq!(values[0], values[1], "{setting}");
    }
    // A client that does not expect them fails at the first notification.
    let mut next = PgConnection::connect(&url).await.unwrap();
    let channels = sqlx::raw_sql("SELECT count(*) FROM pg_listening_channels()");
    let row = channels.fetch_one(&mut next).await.unwrap();
    assert_eq!(sqlx::Row::get::<i64, _>(&row, 0), 0);
}
