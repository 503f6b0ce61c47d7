//! The lease and the table of leases by configuration.

use std::time::Duration;

use lock_core::postgres::LeaseTable;
use lock_core::{LockProvider, LockSettings, ProviderKind};
use lock_tests::redis_key;
use lock_tests::servers::{PostgresServer, RedisServer};
use sqlx::{Executor, PgPool};
use tempfile::tempdir;

use super::support::{exclude, in_files, in_postgres, key_of, sharing};

/// Not the default, and long enough for a machine that is busy.
const LEASE: Duration = Duration::from_secs(2);

/// Less than the default lease, for which a new Redis server would grant nothing.
const WAIT: Duration = Duration::from_secs(20);

const NAME: &str = "order:process:1";

/// Whose locks are in the table that is the default, or in the one that is named.
fn in_table(server: &PostgresServer) -> LockSettings {
    in_postgres(server).provider(ProviderKind::PostgresTable)
}

/// A server with a schema for tables of locks.
async fn with_schema() -> (PostgresServer, PgPool) {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    pool.execute("CREATE SCHEMA locks").await.unwrap();
    (server, pool)
}

#[tokio::test]
async fn a_key_in_redis_lives_for_the_lease_that_is_set() {
    let server = RedisServer::start().await;
    let settings = LockSettings::new().redis_url(server.url()).lease(LEASE);
    let locks = LockProvider::connect(settings).await.unwrap();
    let guard = locks.acquire(NAME, WAIT).await.unwrap();
    let key = redis_key("", guard.name());
    let left: i64 = server.ask(&["PTTL", &key]).await.unwrap();
    assert!((1..=2_000).contains(&left), "{left} ms");
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_session_of_postgres_has_the_lease_that_is_set() {
    let server = PostgresServer::start().await;
    let settings = in_postgres(&server).lease(LEASE);
    let locks = LockProvider::connect(settings).await.unwrap();
    let guard = locks.acquire(NAME, WAIT).await.unwrap();
    let pool = server.pool().await;
    // Sessions say their lease by a key that they hold.
    assert_ne!(sharing(&pool, key_of("lease 2000")).await, [0; 0]);
    assert_eq!(sharing(&pool, key_of("lease 30000")).await, [0; 0]);
    guard.release().await.unwrap();
}

#[tokio::test]
async fn rows_of_the_table_that_is_set_expire_after_the_lease_that_is_set() {
    let (server, pool) = with_schema().await;
    let settings = in_table(&server).table("locks.leases").lease(LEASE);
    let locks = LockProvider::connect(settings).await.unwrap();
    let guard = locks.acquire(NAME, WAIT).await.unwrap();
    let row = "SELECT lease, expires <= clock_timestamp() + interval '2 s' FROM locks.leases \
         WHERE name = $1 AND owner IS NOT NULL";
    let row = sqlx::query_as::<_, (i32, bool)>(row).bind(NAME);
    assert_eq!(row.fetch_one(&pool).await.unwrap(), (2_000, true));
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_set_and_one_that_is_built_by_that_name_exclude_each_other() {
    let (server, _pool) = with_schema().await;
    let settings = in_table(&server).table("locks.leases\n");
    let by_settings = LockProvider::connect(settings).await.unwrap();
    let builder = LeaseTable::builder(server.url()).table("locks.leases");
    let built = LockProvider::new(builder.connect().await.unwrap());
    exclude(&built, &by_settings, NAME).await;
    exclude(&by_settings, &built, NAME).await;
    // Without the setting it is another table, and another lock.
    let unset = LockProvider::connect(in_table(&server)).await.unwrap();
    let guards = [
        built.acquire(NAME, WAIT).await.unwrap(),
        unset.acquire(NAME, Duration::ZERO).await.unwrap(),
    ];
    for guard in guards {
        guard.release().await.unwrap();
    }
}

/// Before anything is asked: there is no server.
#[tokio::test]
async fn a_lease_out_of_bounds_is_refused_with_the_bounds_of_the_provider() {
    let postgres = LockSettings::new().database_url("postgres://app:hunter2@127.0.0.1:1/shop");
    let table = postgres.clone().provider(ProviderKind::PostgresTable);
    let redis = LockSettings::new().redis_url("redis://:hunter2@127.0.0.1:1");
    let (nine_hours, day) = (9 * 3_600_000, 24 * 3_600_000);
    for (settings, millis, bounds) in [
        (&postgres, 999, "from 1s to 32400s"),
        (&postgres, nine_hours + 1, "from 1s to 32400s"),
        (&table, 999, "from 1s to 32400s"),
        (&table, nine_hours + 1, "from 1s to 32400s"),
        (&redis, 0, "from 500 ms to 24 h"),
        (&redis, 499, "from 500 ms to 24 h"),
        (&redis, day + 1, "from 500 ms to 24 h"),
    ] {
        let settings = settings.clone().lease(Duration::from_millis(millis));
        let error = LockProvider::connect(settings).await.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(error.is_misconfigured(), "{said}");
        assert!(
            said.contains("LOCK_LEASE: ") && said.contains(bounds),
            "{said}"
        );
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// Before anything is asked: there is no server.
#[tokio::test]
async fn what_is_no_name_of_a_table_is_refused_by_the_name_of_the_setting() {
    let table = LockSettings::new()
        .database_url("postgres://127.0.0.1:1/shop")
        .provider(ProviderKind::PostgresTable);
    let long = "hunter2".repeat(10);
    for wrong in [
        "locks.",
        ".hunter2",
        "a.b.hunter2",
        "pg_temp.hunter2",
        "hun\0ter2",
        long.as_str(),
    ] {
        let error = LockProvider::connect(table.clone().table(wrong)).await;
        let error = error.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(error.is_misconfigured(), "{wrong}: {said}");
        assert!(said.contains("LOCK_TABLE: "), "{wrong}: {said}");
        assert!(!said.contains("ter2"), "{said}");
    }
}

#[tokio::test]
async fn there_is_no_start_with_a_lease_or_a_table_that_the_provider_does_not_have() {
    let (server, redis) = tokio::join!(PostgresServer::start(), RedisServer::start());
    let dir = tempdir().unwrap();
    let files = in_files(&server, dir.path());
    let redis = LockSettings::new().redis_url(redis.url());
    for (settings, said) in [
        (
            files.clone().lease(LEASE),
            "LOCK_LEASE: the provider `file`",
        ),
        (files.table("leases"), "LOCK_TABLE: the provider `file`"),
        (
            in_postgres(&server).table("leases"),
            "LOCK_TABLE: the provider `postgres`",
        ),
        (redis.table("leases"), "LOCK_TABLE: the provider `redis`"),
    ] {
        let error = LockProvider::connect(settings).await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    assert!(!dir.path().join("locks").exists(), "nothing was opened");
}
