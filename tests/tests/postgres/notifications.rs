//! Notifications on the channel of the library that are not its own, and those that the server does
//! not take.

use std::time::Duration;

use lock_core::LockProvider;
use lock_core::postgres::PostgresBackend;
use lock_tests::child::Child;
use lock_tests::servers::{PgBouncer, PostgresServer};
use lock_tests::{Log, eventually};
use sqlx::{Executor, PgPool};
use tokio::task::JoinSet;

use crate::support::{PATIENCE, acquire, client, numbered, order, take};

/// A role that may connect and nothing else sends them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_notifications_costs_a_waiting_process_no_memory_and_no_answer() {
    const MEGABYTES: u64 = 256;
    let server = PostgresServer::start().await;
    // Its answers come after what the server has to send before, as those of the waiter do: a session that
    // was just opened listens.
    let long = Duration::from_secs(60);
    let holder = PostgresBackend::builder(server.url()).lease(long);
    let holder = LockProvider::builder(holder.connect().await.unwrap())
        .response_timeout(long)
        .build();
    let guard = take(&holder, order()).await;
    let address = format!("postgres:60000:{}", server.url_for("app", "postgres"));
    let mut waiter = Child::start(env!("CARGO_BIN_EXE_locker"), &address).await;
    // Payloads are looked at while a caller waits, and the tries of the waiter are answered after
    // what the server had to send before.
    waiter.tell(&format!("acquire {} 60000", order())).await;
    let before = waiter.resident();
    let url = server.url_for("app", "postgres");
    let stranger = PgPool::connect(&url).await.unwrap();
    let flood = tokio::spawn(async move {
        for _ in 0..MEGABYTES / 32 {
            let flood = "SELECT count(pg_notify('distributed_lock', n || repeat(',0', 3900))) \
                 FROM generate_series(1, 4096) AS n";
            stranger.execute(flood).await.unwrap();
        }
    });
    let mut most = before;
    while !flood.is_finished() {
        most = most.max(waiter.resident());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    flood.await.unwrap();
    guard.release().await.unwrap();
    assert_eq!(waiter.answer().await, "granted");
    let more = (most.max(waiter.resident()) - before) / 1_000_000;
    assert!(more < MEGABYTES / 8, "{more} MB more for {MEGABYTES} MB");
}

/// A server whose queue of notifications can be full: as there, the commit of who notifies fails, with
/// the same error.
async fn with_queue() -> (PostgresServer, PgPool) {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let made = sqlx::raw_sql(
        "CREATE TABLE queue (is_full bool); INSERT INTO queue VALUES (false);
        CREATE TABLE notified (); GRANT ALL ON notified, queue TO PUBLIC;
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF (SELECT is_full FROM queue) THEN
                RAISE 'too many notifications in the NOTIFY queue' USING ERRCODE = '54000';
            END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON notified
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
        SET allow_system_table_mods = on;
        ALTER FUNCTION pg_catalog.pg_notify(text, text) RENAME TO pg_notify_now;
        CREATE FUNCTION pg_catalog.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO public.notified DEFAULT VALUES;
            PERFORM pg_catalog.pg_notify_now($1, $2);
        END $$;
        RESET allow_system_table_mods;",
    );
    made.execute(&pool).await.unwrap();
    (server, pool)
}

async fn fill_queue(pool: &PgPool, is_full: bool) {
    let set = sqlx::query("UPDATE queue SET is_full = $1").bind(is_full);
    set.execute(pool).await.unwrap();
}

async fn hand_over(
    holder: &LockProvider,
    other: &LockProvider,
    server: &PostgresServer,
    number: usize,
) {
    let guard = take(holder, numbered(number)).await;
    let lock = other.lock(numbered(number)).unwrap();
    let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    let pool = server.pool().await;
    eventually("it waits", || async {
        let shared = sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' \
             AND objsubid = 1",
        );
        // The leases, and a registration.
        shared.fetch_one(&pool).await.unwrap() == 3
    })
    .await;
    guard.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_of_notifications_costs_no_lock_no_release_and_no_start() {
    let (server, pool) = with_queue().await;
    let (holder, other) = (client(&server.url()).await, client(&server.url()).await);
    hand_over(&holder, &other, &server, 1).await;
    let held = take(&holder, order()).await;
    fill_queue(&pool, true).await;
    for number in 2..6 {
        hand_over(&holder, &other, &server, number).await;
    }
    // What goes with a release that is refused is no worse off.
    let mut together = JoinSet::new();
    for task in 0..64 {
        let client = if task % 2 == 0 { &holder } else { &other };
        let lock = client.lock(numbered(100 + task % 8)).unwrap();
        together.spawn(async move {
            for _ in 0..4 {
                let guard = lock.acquire(PATIENCE).await.unwrap();
                guard.release().await.unwrap();
            }
        });
    }
    while let Some(done) = together.join_next().await {
        done.unwrap();
    }
    assert!(held.is_valid());
    // A start, and one who comes back.
    let log = Log::of_process();
    let fresh = client(&server.url()).await;
    assert!(
        log.text()
            .contains("the notification queue of the server is full")
    );
    assert!(server.terminate_backends("distributed_lock").await >= 3);
    held.lost().await;
    drop(acquire(&fresh, order(), PATIENCE).await);
    drop(acquire(&holder, order(), PATIENCE).await);
    // And a proxy that shares sessions is found all the same.
    let bouncer = PgBouncer::transaction(&server).await;
    let refused = PostgresBackend::connect(&bouncer.url()).await.unwrap_err();
    assert!(refused.is_misconfigured(), "{refused:?}");
    assert!(
        refused.to_string().contains("transaction pooling"),
        "{refused}"
    );
    fill_queue(&pool, false).await;
    drop(acquire(&other, order(), PATIENCE).await);
}

/// A text that is one in the encoding of the database, and none in that of the client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_that_cannot_be_read_costs_no_session() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let made =
        "CREATE DATABASE old ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
    pool.execute(made).await.unwrap();
    let url = server.url_for("app", "old");
    let (holder, other) = (client(&url).await, client(&url).await);
    let guard = take(&holder, order()).await;
    let lock = other.lock(order()).unwrap();
    let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    let stranger = PgPool::connect(&url).await.unwrap();
    for _ in 0..20 {
        let told = stranger.execute(r"SELECT pg_notify('distributed_lock', E'\xff')");
        told.await.unwrap();
    }
    holder.health().await;
    assert!(guard.is_valid());
    guard.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
}
