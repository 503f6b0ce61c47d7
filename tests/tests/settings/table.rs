//! The lease table by configuration, and fleets of which a part keeps its locks elsewhere.

use std::time::Duration;

use lock_core::{LockProvider, LockSettings, ProviderKind};
use lock_tests::servers::{PgBouncer, PostgresServer, RedisServer};
use lock_tests::{Log, eventually};
use sqlx::PgPool;
use tempfile::tempdir;
use tracing::Level;

use super::support::{in_files, in_postgres, refused};

/// Whose locks are in a table, behind a pooler.
fn in_table(bouncer: &PgBouncer) -> LockSettings {
    LockSettings::new()
        .database_url(bouncer.url())
        .provider(ProviderKind::PostgresTable)
}

async fn marks(pool: &PgPool) -> i64 {
    let marks = "SELECT count(*) FROM distributed_lock_leases WHERE name = 'mark'";
    sqlx::query_scalar(marks).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_provider_in_a_table_behind_a_pooler_says_so_and_locks() {
    let server = PostgresServer::start().await;
    let bouncer = PgBouncer::transaction(&server).await;
    let (log, listening) = Log::of_thread(Level::INFO);
    let settings = in_table(&bouncer).namespace("shop");
    let locks = LockProvider::connect(settings).await.unwrap();
    drop(listening);
    let line =
        "Distributed locks: PostgreSQL lease table public.distributed_lock_leases (works behind";
    assert_eq!(log.count(line), 1, "{}", log.text());
    let health = locks.health().await;
    let names: Vec<_> = (health.servers().iter())
        .map(|server| (server.name(), server.is_up()))
        .collect();
    assert_eq!(names, [("postgres-table", true)]);
    let lock = locks.lock("order:process:1").unwrap();
    let guard = lock.acquire(Duration::ZERO).await.unwrap();
    let pool = server.pool().await;
    let held = "SELECT count(*) FROM distributed_lock_leases \
         WHERE namespace = 'shop' AND name = 'order:process:1' AND owner IS NOT NULL";
    let held = sqlx::query_scalar::<_, i64>(held).fetch_one(&pool);
    assert_eq!(held.await.unwrap(), 1);
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_table_and_another_provider_find_each_other() {
    let (server, redis) = tokio::join!(PostgresServer::start(), RedisServer::start());
    let (bouncer, dir) = (PgBouncer::transaction(&server).await, tempdir().unwrap());
    let pool = server.pool().await;
    let others = [
        ("postgres", in_postgres(&server)),
        ("redis", in_postgres(&server).redis_url(redis.url())),
        ("file", in_files(&server, dir.path())),
    ];
    for (name, other) in others {
        let table = LockProvider::connect(in_table(&bouncer)).await.unwrap();
        let another = LockProvider::connect(in_table(&bouncer)).await.unwrap();
        assert_eq!(marks(&pool).await, 2);
        let said = refused(LockProvider::connect(other.clone()).await);
        for part in ["held by `postgres-table`", &format!("by `{name}`")] {
            assert!(said.contains(part), "{part}: {said}");
        }
        // Another namespace is another fleet.
        let apart = other.clone().namespace("apart");
        drop(LockProvider::connect(apart).await.unwrap());
        table.shutdown(Duration::ZERO).await;
        another.shutdown(Duration::ZERO).await;
        assert_eq!(marks(&pool).await, 0, "they go with their processes");

        let first = LockProvider::connect(other.clone()).await.unwrap();
        let said = refused(LockProvider::connect(in_table(&bouncer)).await);
        assert!(said.contains(&format!("held by `{name}`")), "{said}");
        assert_eq!(marks(&pool).await, 0, "what is refused leaves no mark");
        let allowed = in_table(&bouncer).allow_switch(true);
        drop(LockProvider::connect(allowed).await.unwrap());
        first.shutdown(Duration::ZERO).await;
        eventually("the marks are gone", || async { marks(&pool).await == 0 }).await;
    }
}

#[tokio::test]
async fn a_table_grants_nothing_while_another_provider_has_locks() {
    let server = PostgresServer::start().await;
    let bouncer = PgBouncer::transaction(&server).await;
    let table = LockProvider::connect(in_table(&bouncer)).await.unwrap();
    let switching = in_postgres(&server).allow_switch(true);
    let other = LockProvider::connect(switching).await.unwrap();
    let lock = table.lock("order:process:1").unwrap();
    eventually("it is refused, with the reason", || async {
        let refused = lock.acquire(Duration::ZERO).await.err();
        refused.is_some_and(|error| error.to_string().contains("LOCK_SWITCH"))
    })
    .await;
    other.shutdown(Duration::ZERO).await;
    drop(lock.acquire(Duration::from_secs(10)).await.unwrap());
}
