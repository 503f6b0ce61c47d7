//! The backend as its users have it: options, errors, connections, and the fence of a guard.

use lock_core::postgres::{LeaseTable, LeaseTableBuilder};
use lock_core::{Credentials, LockProvider};
use lock_tests::servers::{PgBouncer, PostgresServer};
use lock_tests::{GrantedStore, LeaseTableStore, Log, Store, eventually};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Executor};
use tokio::time::{sleep, timeout};
use tracing::Level;

use crate::support::{LEASE, PATIENCE, ZERO, acquire, order, take};

/// Why it does not connect, for good.
async fn refused(builder: LeaseTableBuilder) -> String {
    let error = builder.connect().await.unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(
        error.is_misconfigured() && !said.contains("hunter2"),
        "{said}"
    );
    said
}

#[tokio::test]
async fn bad_input_of_an_option_is_named_before_anything_is_made() {
    let server = PostgresServer::start().await;
    let url = server.url();
    let builder = || LeaseTable::builder(&url);
    for (builder, named) in [
        (
            LeaseTable::builder("mysql://app:hunter2@db/shop"),
            "begins with `mysql:`",
        ),
        (LeaseTable::builder("hunter2"), "connection string"),
        (builder().lease(LEASE / 3), "a lease of"),
        (builder().lease(LEASE * 20_000), "a lease of"),
        (builder().namespace("hun\nter2"), "namespace"),
        (builder().table(""), "1 to 63 bytes"),
        (builder().table("hun\0ter2"), "1 to 63 bytes"),
        (builder().table("pg_temp.leases"), "`pg_`"),
        (builder().table("shop.locks.leases"), "1 to 63 bytes"),
        (builder().table("x".repeat(64)), "1 to 63 bytes"),
        (builder().token_epoch(127), "126"),
        (builder().listen_url("redis://:hunter2@cache"), "listen_url"),
        (builder().create_table(false), "CREATE TABLE"),
    ] {
        let said = refused(builder).await;
        assert!(said.contains(named), "{named}: {said}");
    }
    let pool = server.pool().await;
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE '%lease%'";
    let tables = sqlx::query_scalar::<_, i64>(tables).fetch_one(&pool).await;
    assert_eq!(tables.unwrap(), 0);
}

/// By a role that may make none.
#[tokio::test]
async fn a_table_that_a_migration_has_made_is_used() {
    let server = PostgresServer::start().await;
    let (pool, url) = (server.pool().await, server.url_for("app", "postgres"));
    let builder = || LeaseTable::builder(&url).table("public.locks");
    let said = refused(builder()).await;
    let sql = builder().table_sql().unwrap();
    assert!(said.contains(&sql), "{said}");
    let grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON public.locks TO app";
    let migration = format!("{sql} {sql} {grant}");
    pool.execute(AssertSqlSafe(migration)).await.unwrap();
    let table = builder().create_table(false).connect().await.unwrap();
    let locks = LockProvider::new(table);
    take(&locks, order()).await.release().await.unwrap();
}

/// With what was taken from all roles granted to one, by the lines that `GRANTS` has.
#[tokio::test]
async fn a_role_with_the_rights_that_are_listed_and_no_more_has_locks() {
    let server = PostgresServer::start().await;
    let (pool, url) = (server.pool().await, server.url_for("app", "postgres"));
    let builder = || LeaseTable::builder(&url).table("locks.distributed_lock_leases");
    let sql = builder().table_sql().unwrap();
    let taken = format!(
        "CREATE SCHEMA locks; {sql} \
         REVOKE ALL ON DATABASE postgres FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC; \
         REVOKE EXECUTE ON FUNCTION pg_walfile_name, pg_current_wal_lsn FROM PUBLIC;"
    );
    pool.execute(AssertSqlSafe(taken)).await.unwrap();
    let lines = ["Database", "Lease table"]
        .map(GrantedStore::lines)
        .concat();
    pool.execute(AssertSqlSafe(lines.join("\n"))).await.unwrap();

    let (log, listening) = Log::of_thread(Level::WARN);
    let locks = LockProvider::new(builder().connect().await.unwrap());
    drop(listening);
    assert_eq!(log.lines(Level::WARN), [""; 0]);
    let guard = take(&locks, order()).await;
    guard.fencing_token().await.unwrap();
    assert!(locks.holder(order()).await.unwrap().is_some());
    guard.release().await.unwrap();
    let reader = locks.lock(order()).unwrap().shared();
    let guards = [
        reader.acquire(ZERO).await.unwrap(),
        reader.acquire(ZERO).await.unwrap(),
    ];
    for guard in guards {
        guard.release().await.unwrap();
    }
}

#[tokio::test]
async fn where_the_locks_are_is_in_one_line_without_a_secret() {
    let server = PostgresServer::start().await;
    let (log, listening) = Log::of_thread(Level::INFO);
    let builder = LeaseTable::builder(server.url()).table("Odd \"name\"");
    let _table = builder.namespace("shop").connect().await.unwrap();
    drop(listening);
    let lines = log.lines(Level::INFO);
    let [line] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    for part in [
        r#"Distributed locks: PostgreSQL lease table public."Odd ""name""#,
        "(works behind transaction poolers)",
        "shop",
        &server.address().to_string(),
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// The session backend names what works there.
#[tokio::test]
async fn the_refusal_of_a_pooler_names_the_table() {
    let server = PostgresServer::start().await;
    let bouncer = PgBouncer::transaction(&server).await;
    let refused = lock_core::postgres::PostgresBackend::connect(&bouncer.url()).await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("LOCK_PROVIDER=postgres-table"), "{said}");
    LeaseTable::connect(&bouncer.url()).await.unwrap();
}

#[tokio::test]
async fn a_password_that_changes_is_asked_for() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    LeaseTable::connect(&server.url()).await.unwrap();
    let grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON distributed_lock_leases TO secretive; \
         CREATE ROLE rotated LOGIN PASSWORD 'later' IN ROLE by_password, secretive";
    pool.execute(grant).await.unwrap();
    let url = server.url_for("secretive", "postgres");
    let builder = LeaseTable::builder(&url)
        .credentials(|| async { Ok::<_, std::io::Error>(Credentials::new("rotated", "later")) });
    let locks = LockProvider::new(builder.connect().await.unwrap());
    take(&locks, order()).await.release().await.unwrap();
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'rotated'";
    let sessions = sqlx::query_scalar::<_, i64>(sessions).fetch_one(&pool);
    assert!(sessions.await.unwrap() > 0);
}

#[tokio::test]
async fn two_connections_are_enough_whatever_is_held_and_awaited() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let with = PgPoolOptions::new().connect(&server.url()).await.unwrap();
    let locks = LockProvider::new(LeaseTable::from_pool(&with).await.unwrap());
    let other = LockProvider::new(LeaseTable::connect(&server.url()).await.unwrap());
    let names = (0..500).map(|number| format!("order:process:{number}"));
    let held = locks.claim(names, 500).await.unwrap();
    assert_eq!(held.len(), 500);
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..500 {
        let lock = other.lock(format!("order:process:{number}")).unwrap();
        waiting.spawn(async move { lock.acquire(PATIENCE).await.unwrap() });
    }
    for _ in 0..20 {
        sleep(LEASE / 20).await;
        let sessions = "SELECT count(*) FROM pg_stat_activity \
             WHERE application_name = 'distributed_lock_table'";
        let sessions = sqlx::query_scalar::<_, i64>(sessions).fetch_one(&pool);
        assert!(sessions.await.unwrap() <= 4);
    }
    drop(held);
    assert_eq!(waiting.join_all().await.len(), 500);
}

/// What the transaction writes is committed before the next holder is granted the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_transaction_ends_before_the_next_holder_has_the_lock() {
    let store = LeaseTableStore::open().await;
    let table = store.backend().await;
    let (locks, other) = (LockProvider::new(table.clone()), store.client().await);
    let guard = take(&locks, order()).await;
    let mut tx = store.pool().begin().await.unwrap();
    table.fence(&mut tx, &guard).await.unwrap();
    // Its renewals go on.
    sleep(LEASE * 2).await;
    assert!(guard.is_valid());
    store.lose(&order()).await;
    guard.lost().await;
    let lock = other.lock(order()).unwrap();
    assert!(lock.try_acquire(LEASE).await.unwrap().is_none());
    tx.commit().await.unwrap();
    let next = acquire(&other, order(), PATIENCE).await;
    let mut tx = store.pool().begin().await.unwrap();
    let late = table.fence(&mut tx, &guard).await.unwrap_err();
    assert!(late.is_lost(), "{late}");
    next.release().await.unwrap();
}

/// Of the same process, in which the lock would stay otherwise.
#[tokio::test]
async fn a_fenced_transaction_ends_before_the_next_task_has_the_lock() {
    let store = LeaseTableStore::open().await;
    let table = store.backend().await;
    let locks = LockProvider::builder(table.clone())
        .local_handover(PATIENCE)
        .build();
    let guard = take(&locks, order()).await;
    let mut tx = store.pool().begin().await.unwrap();
    table.fence(&mut tx, &guard).await.unwrap();
    let mut next = locks.lock(order()).unwrap().acquire_owned(PATIENCE);
    assert!(timeout(LEASE / 10, &mut next).await.is_err(), "it is held");
    guard.release().await.unwrap();
    let early = timeout(LEASE / 2, &mut next).await;
    assert!(early.is_err(), "the transaction is not committed");
    tx.commit().await.unwrap();
    next.await.unwrap().release().await.unwrap();
}

/// Of a role or a database that has no such table.
#[tokio::test]
async fn a_fence_in_another_database_says_so() {
    let server = PostgresServer::start().await;
    let table = LeaseTable::connect(&server.url()).await.unwrap();
    let locks = LockProvider::new(table.clone());
    let guard = take(&locks, order()).await;
    let pool = server.pool().await;
    pool.execute("CREATE DATABASE elsewhere TEMPLATE template0")
        .await
        .unwrap();
    let url = server.url_for("postgres", "elsewhere");
    let elsewhere = PgPoolOptions::new().connect(&url).await.unwrap();
    let mut tx = elsewhere.begin().await.unwrap();
    let error = table.fence(&mut tx, &guard).await.unwrap_err();
    assert!(
        error.is_misconfigured() && error.to_string().contains("database"),
        "{error}"
    );
}

/// A row that is changed by hand, as an administrator does who frees a lock.
#[tokio::test]
async fn a_lock_that_is_freed_by_hand_is_lost_and_granted() {
    let store = LeaseTableStore::open().await;
    let (locks, other) = (store.client().await, store.client().await);
    let guard = take(&locks, order()).await;
    let token = guard.fencing_token().await.unwrap();
    let delete = "DELETE FROM distributed_lock_leases WHERE name = 'order:process:42'";
    store.pool().execute(AssertSqlSafe(delete)).await.unwrap();
    let next = acquire(&other, order(), PATIENCE).await;
    guard.lost().await;
    assert!(next.fencing_token().await.unwrap() > token);
    let lock = locks.lock(order()).unwrap();
    assert!(lock.try_acquire(ZERO).await.unwrap().is_none());
    next.release().await.unwrap();
    eventually("it is free", async || {
        lock.try_acquire(ZERO).await.unwrap().is_some()
    })
    .await;
}
