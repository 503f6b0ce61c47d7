//! Waiters that are woken by notifications over a direct connection, and go on without.

use std::time::Duration;

use lock_core::LockProvider;
use lock_core::postgres::LeaseTable;
use lock_tests::servers::{PgBouncer, PostgresServer};
use lock_tests::{DirectLeaseTableStore, Lateness, Log, Store, eventually};
use sqlx::Executor;
use sqlx::postgres::{PgListener, PgPool};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{BOUND, HeldUp, LEASE, PATIENCE, ZERO, acquire, order, take};

/// After this the poll of a process that waits is at its longest pause, a second.
const POLLS_SELDOM: Duration = Duration::from_secs(3);

const CHANNEL: &str = "distributed_lock_leases";

fn waits(client: &LockProvider) -> JoinHandle<lock_core::LockGuard> {
    let lock = client.lock(order()).unwrap();
    tokio::spawn(async move { lock.acquire(PATIENCE).await.unwrap() })
}

async fn end_listening(pool: &PgPool) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = 'distributed_lock_table' AND query LIKE 'LISTEN%'";
    pool.execute(end).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_wakes_a_waiter_of_another_process_between_polls() {
    let store = DirectLeaseTableStore::open().await;
    let (mut here, mut there) = (store.client().await, store.client().await);
    let mut guard = take(&here, order()).await;
    for _ in 0..3 {
        let waiting = waits(&there);
        sleep(POLLS_SELDOM).await;
        let late = Lateness::of(ZERO);
        guard.release().await.unwrap();
        guard = waiting.await.unwrap();
        late.at_most(BOUND).await;
        std::mem::swap(&mut here, &mut there);
    }
}

#[tokio::test]
async fn a_release_that_is_not_awaited_notifies_no_process() {
    let store = DirectLeaseTableStore::open().await;
    let (here, there) = (store.client().await, store.client().await);
    let mut listener = PgListener::connect_with(store.pool()).await.unwrap();
    listener.listen(CHANNEL).await.unwrap();
    for _ in 0..20 {
        let guard = take(&here, order()).await;
        // Nor is it awaited by a caller that does not wait.
        let lock = there.lock(order()).unwrap();
        assert!(lock.try_acquire(ZERO).await.unwrap().is_none());
        guard.release().await.unwrap();
    }
    let heard = timeout(LEASE / 4, listener.recv()).await;
    assert!(heard.is_err(), "{heard:?}");
    let guard = take(&here, order()).await;
    let waiting = waits(&there);
    until_it_is_awaited(store.pool()).await;
    guard.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    let heard = timeout(PATIENCE, listener.recv()).await;
    assert!(heard.is_ok(), "that one is notified");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_listener_is_lost_polls_and_listens_again() {
    let log = Log::of_process();
    let store = DirectLeaseTableStore::open().await;
    let (here, there) = (store.client().await, store.client().await);
    for _ in 0..2 {
        let guard = take(&here, order()).await;
        let waiting = waits(&there);
        end_listening(store.pool()).await;
        guard.release().await.unwrap();
        waiting.await.unwrap().release().await.unwrap();
        eventually("it listens again", async || {
            let listening = "SELECT count(*) FROM pg_stat_activity \
                 WHERE application_name = 'distributed_lock_table' AND query LIKE 'LISTEN%'";
            let listening = sqlx::query_scalar::<_, i64>(listening).fetch_one(store.pool());
            listening.await.unwrap() >= 2
        })
        .await;
    }
    assert!(log.count("by `listen_url` is lost") > 0, "{}", log.text());
}

/// The locks are behind the pooler, and a second address leads to it as well.
#[tokio::test]
async fn a_listen_url_on_which_nothing_arrives_is_refused() {
    let server = PostgresServer::start().await;
    let bouncer = PgBouncer::transaction(&server).await;
    let pool = server.pool().await;
    pool.execute("CREATE DATABASE elsewhere TEMPLATE template0")
        .await
        .unwrap();
    for wrong in [bouncer.url(), server.url_for("postgres", "elsewhere")] {
        let builder = LeaseTable::builder(bouncer.url()).listen_url(wrong);
        let error = builder.connect().await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        assert!(error.to_string().contains("`listen_url` leads"), "{error}");
    }
    let right = LeaseTable::builder(bouncer.url()).listen_url(server.url());
    right.connect().await.unwrap();
}

/// A try for waiters stands in line on the server while the last of them leaves. Then the lock is free, and who asks for
/// it comes behind that try, or before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_wait_is_not_refused_for_waiters_that_have_left() {
    /// Nearer to what the driver waits for a try, a round on a busy machine says nothing.
    const IN_TIME: Duration = Duration::from_millis(150);
    let store = DirectLeaseTableStore::open().await;
    let here = store.client().await;
    take(&here, order()).await.release().await.unwrap();
    let (mut tried, mut too_late) = (0, 0);
    while tried < 12 {
        held_by_another(store.pool()).await;
        let waiting = waits(&here);
        until_it_is_awaited(store.pool()).await;
        let mut closed = store.pool().begin().await.unwrap();
        let close = "LOCK TABLE distributed_lock_leases IN SHARE MODE; \
             DELETE FROM distributed_lock_leases WHERE name = 'order:process:42'";
        closed.execute(close).await.unwrap();
        let begun = Instant::now();
        let notify = "SELECT pg_notify($1, key::text) FROM distributed_lock_leases \
             WHERE name = 'order:process:42'";
        let notifying = sqlx::query(notify).bind(CHANNEL);
        notifying.execute(store.pool()).await.unwrap();
        let in_line = async |many: i64| {
            while stand_in_line(store.pool()).await < many && begun.elapsed() < IN_TIME {
                sleep(Duration::from_millis(1)).await;
            }
        };
        in_line(1).await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        let lock = here.lock(order()).unwrap();
        let trying = tokio::spawn(async move { lock.try_acquire(ZERO).await });
        in_line(2).await;
        closed.commit().await.unwrap();
        match trying.await.unwrap() {
            Ok(Some(guard)) => {
                guard.release().await.unwrap();
                tried += 1;
            }
            answer if begun.elapsed() < IN_TIME => panic!("it was free: {answer:?}"),
            _ => too_late += 1,
        }
        assert!(too_late < 200, "{tried} rounds were in time");
    }
}

/// Another process holds the lock, and will not release it.
async fn held_by_another(pool: &PgPool) {
    let held = "UPDATE distributed_lock_leases \
         SET owner = gen_random_uuid(), lease = 30000, expires = clock_timestamp() + interval '30 s' \
         WHERE name = 'order:process:42'";
    let done = pool.execute(held).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

async fn until_it_is_awaited(pool: &PgPool) {
    let seen = "SELECT awaited FROM distributed_lock_leases WHERE name = 'order:process:42'";
    eventually("it is awaited", async || {
        let seen = sqlx::query_scalar::<_, bool>(seen).fetch_one(pool);
        seen.await.unwrap()
    })
    .await;
}

/// How many statements wait for the table.
async fn stand_in_line(pool: &PgPool) -> i64 {
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IS NOT NULL";
    sqlx::query_scalar(waiting).fetch_one(pool).await.unwrap()
}

/// A commit of another client that holds up all notifications costs a release one try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_done_while_notifications_are_held_up() {
    let server = PostgresServer::start().await;
    let url = server.url();
    let client = async || {
        let builder = LeaseTable::builder(&url).listen_url(&url);
        LockProvider::new(builder.connect().await.unwrap())
    };
    let (here, there) = (client().await, client().await);
    let guard = take(&here, order()).await;
    let waiting = waits(&there);
    sleep(LEASE / 4).await;
    let held_up = HeldUp::on(&server).await;
    guard.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    let again = acquire(&here, order(), PATIENCE).await;
    again.release().await.unwrap();
    held_up.end().await;
}
