//! What happens to servers, poolers and clocks, as holders and waiters of the backend see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_core::postgres::LeaseTable;
use lock_core::{LockProvider, LossReason};
use lock_tests::checker::{Event, Rules, judge};
use lock_tests::child::Child;
use lock_tests::servers::{Direction, PgBouncer, PostgresServer, Proxy, Server};
use lock_tests::{LeaseTableStore, Store, boottime, eventually};
use sqlx::Executor;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::{BOUND, Ended, LEASE, MARGIN, PATIENCE, ZERO, acquire, numbered, order, take};

/// An hour, much longer than a lease.
const STEP: i64 = 3_600;

async fn client(url: &str) -> LockProvider {
    client_for(url, LEASE).await
}

async fn client_for(url: &str, lease: Duration) -> LockProvider {
    let builder = LeaseTable::builder(url).lease(lease);
    LockProvider::new(builder.connect().await.unwrap())
}

async fn is_held(client: &LockProvider, number: usize) -> bool {
    let lock = client.lock(numbered(number)).unwrap();
    lock.try_acquire(ZERO).await.unwrap().is_none()
}

/// Processes that take a few locks in turns, and what they wrote down.
async fn hammering(address: &str, processes: usize, rounds: usize) -> JoinSet<Vec<Event>> {
    let names: Vec<_> = (0..4).map(|n| numbered(n).to_string()).collect();
    let command = format!("hammer {rounds} {}", names.join(" "));
    let mut children = JoinSet::new();
    for _ in 0..processes {
        let mut child = Child::start(env!("CARGO_BIN_EXE_locker"), address).await;
        let command = command.clone();
        children.spawn(async move {
            child.tell(&command).await;
            let mut events: Vec<Event> = Vec::new();
            loop {
                match child.answer().await.as_str() {
                    "done" => return events,
                    event => events.push(serde_json::from_str(event).unwrap()),
                }
            }
        });
    }
    children
}

/// The pooler gives them two sessions between all of them, whose transactions are serializable unless they say
/// otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_processes_behind_two_sessions_exclude_each_other() {
    const PROCESSES: usize = 8;
    const ROUNDS: usize = 25;
    let server = PostgresServer::with(&[("default_transaction_isolation", "serializable")]).await;
    let pooling = [("pool_mode", "transaction"), ("default_pool_size", "2")];
    let bouncer = PgBouncer::with(&server, &pooling).await;
    let address = format!("table:10000:{}", bouncer.url());
    let children = hammering(&address, PROCESSES, ROUNDS).await;
    let history = children.join_all().await.concat();
    let verdict = judge(&history, &Rules::default()).assert_clean();
    assert_eq!(verdict.counts.acquires.done, PROCESSES * 3 * ROUNDS);
    assert_eq!(verdict.counts.releases.done, PROCESSES * 3 * ROUNDS);
}

/// As where many processes have shares of one lock, and each stands in line for its row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_is_renewed_while_the_row_of_a_reader_is_busy() {
    let server = PostgresServer::start().await;
    let here = client_for(&server.url(), 3 * LEASE).await;
    let writer = take(&here, numbered(1)).await;
    let read = here.lock(numbered(2)).unwrap().shared();
    let reader = read.acquire(ZERO).await.unwrap();
    let pool = server.pool().await;
    let mut busy = pool.begin().await.unwrap();
    let row = "SELECT FROM distributed_lock_leases WHERE name = 'order:process:2' FOR UPDATE";
    busy.execute(row).await.unwrap();
    timeout(PATIENCE, reader.lost()).await.unwrap();
    sleep(LEASE).await;
    assert!(writer.is_valid(), "its row is its own");
    busy.rollback().await.unwrap();
    writer.release().await.unwrap();
}

/// A lock is a row, which the restart of a server does not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_outlives_restarts_of_pooler_and_server() {
    let server = PostgresServer::with(&[("fsync", "on")]).await;
    let bouncer = PgBouncer::transaction(&server).await;
    let (here, there) = (
        client_for(&bouncer.url(), LEASE * 5).await,
        client_for(&bouncer.url(), LEASE * 5).await,
    );
    let guard = take(&here, order()).await;
    bouncer.kill().await;
    bouncer.restart().await;
    server.kill().await;
    server.restart().await;
    eventually("the pooler has sessions again", async || {
        let lock = there.lock(order()).unwrap();
        matches!(lock.try_acquire(ZERO).await, Ok(None))
    })
    .await;
    assert!(guard.is_valid());
    guard.release().await.unwrap();
    acquire(&there, order(), PATIENCE)
        .await
        .release()
        .await
        .unwrap();
}

/// So are the shares of readers and the place of a writer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_a_writer_that_waits_outlive_restarts_of_pooler_and_server() {
    let server = PostgresServer::with(&[("fsync", "on")]).await;
    // A server that comes up again is used immediately.
    let settings = [("pool_mode", "transaction"), ("server_login_retry", "0.1")];
    let bouncer = PgBouncer::with(&server, &settings).await;
    let lease = LEASE * 5;
    let (here, there) = (
        client_for(&bouncer.url(), lease).await,
        client_for(&bouncer.url(), lease).await,
    );
    let reader = here.lock(order()).unwrap().shared();
    let guards = [
        reader.acquire(ZERO).await.unwrap(),
        reader.acquire(ZERO).await.unwrap(),
    ];
    let writing = there.lock(order()).unwrap().acquire_owned(PATIENCE);
    let writing = tokio::spawn(writing);
    let is_kept_out = async || matches!(reader.try_acquire(ZERO).await, Ok(None));
    eventually("the writer waits", is_kept_out).await;
    bouncer.kill().await;
    bouncer.restart().await;
    server.kill().await;
    server.restart().await;
    eventually("the pooler has sessions again", is_kept_out).await;
    for guard in guards {
        assert!(guard.is_valid() && !writing.is_finished());
        guard.release().await.unwrap();
    }
    writing.await.unwrap().unwrap().release().await.unwrap();
}

/// The later of two has taken the place of the earlier, and gives up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_waits_on_takes_the_place_of_one_that_gave_up() {
    let store = LeaseTableStore::open().await;
    let (here, there) = (store.client().await, store.client().await);
    let reader = here.lock(order()).unwrap().shared();
    let guard = reader.acquire(ZERO).await.unwrap();
    let place = async || {
        let place = "SELECT wanted_by::text FROM distributed_lock_leases \
             WHERE wanted_until > clock_timestamp()";
        let place = sqlx::query_scalar::<_, String>(place);
        place.fetch_optional(store.pool()).await.unwrap()
    };
    let wait = |client: &LockProvider| {
        let writing = client.lock(order()).unwrap().acquire_owned(PATIENCE);
        tokio::spawn(writing)
    };
    let first = wait(&there);
    eventually("it has a place", async || place().await.is_some()).await;
    let of_the_first = place().await;
    let other = store.client().await;
    let second = wait(&other);
    eventually("the other has it", async || {
        let now = place().await;
        now.is_some() && now != of_the_first
    })
    .await;
    second.abort();
    eventually("the first has a place again", async || {
        place().await == of_the_first
    })
    .await;
    assert!(!first.is_finished() && reader.try_acquire(ZERO).await.unwrap().is_none());
    guard.release().await.unwrap();
    first.await.unwrap().unwrap().release().await.unwrap();
    let guard = reader.acquire(PATIENCE).await.unwrap();
    guard.release().await.unwrap();
}

/// As a command does that gives up and ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_leaves_no_place_of_its_writers_behind() {
    let store = LeaseTableStore::open().await;
    let url = store.pooler().url();
    // Much longer than anything here takes.
    let lease = Duration::from_secs(300);
    let (here, there) = (client_for(&url, lease).await, client_for(&url, lease).await);
    let reader = here.lock(order()).unwrap().shared();
    let guard = reader.acquire(ZERO).await.unwrap();
    let writing = tokio::spawn(there.lock(order()).unwrap().acquire_owned(PATIENCE));
    eventually("it keeps readers out", async || {
        reader.try_acquire(ZERO).await.unwrap().is_none()
    })
    .await;
    writing.abort();
    assert!(writing.await.is_err());
    there.shutdown(ZERO).await;
    drop(there);
    eventually("readers are let in again", async || {
        reader.try_acquire(ZERO).await.unwrap().is_some()
    })
    .await;
    guard.release().await.unwrap();
}

/// Others can have the row of readers for longer than a statement waits for it: that is no error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_waits_out_a_row_that_is_busy_for_long() {
    let store = LeaseTableStore::open().await;
    let client = store.client().await;
    let reader = client.lock(order()).unwrap().shared();
    reader.acquire(ZERO).await.unwrap().release().await.unwrap();
    let mut other = store.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM distributed_lock_leases WHERE name <> 'server' FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    // A statement gives up after half a second, an acquire is tried for two.
    let ending = async {
        sleep(Duration::from_millis(800)).await;
        other.commit().await.unwrap();
    };
    let (guard, ()) = tokio::join!(reader.acquire(PATIENCE), ending);
    guard.unwrap().release().await.unwrap();
}

/// It is taken again before it ends, by the process that waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_keeps_readers_out_for_as_long_as_it_waits() {
    const SHORT: Duration = Duration::from_secs(1);
    let store = LeaseTableStore::open().await;
    let url = store.pooler().url();
    let (here, there) = (store.client().await, client_for(&url, SHORT).await);
    let reader = here.lock(order()).unwrap().shared();
    let guard = reader.acquire(ZERO).await.unwrap();
    let writing = there.lock(order()).unwrap().acquire_owned(PATIENCE);
    let writing = tokio::spawn(writing);
    let is_kept_out = async || matches!(reader.try_acquire(ZERO).await, Ok(None));
    eventually("the writer waits", is_kept_out).await;
    let begun = Instant::now();
    while begun.elapsed() < SHORT * 4 {
        assert!(is_kept_out().await && guard.is_valid());
    }
    guard.release().await.unwrap();
    writing.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_costs_the_lock_and_holds_up_no_caller() {
    let store = LeaseTableStore::open().await;
    let (here, there) = (store.client().await, store.client().await);
    let guard = take(&here, order()).await;
    store.server().freeze().await;
    let lock = there.lock(numbered(1)).unwrap();
    let refused = lock.acquire(ZERO).await.unwrap_err();
    assert!(refused.is_unavailable(), "{refused}");
    guard.lost().await;
    store.server().thaw().await;
    let next = acquire(&there, order(), PATIENCE).await;
    assert!(!guard.is_valid() && next.is_valid());
}

/// Its answer is long under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_counts_from_before_its_request_was_sent() {
    /// Each way.
    const DELAY: Duration = Duration::from_millis(400);
    let store = LeaseTableStore::open().await;
    let network = Proxy::to(store.pooler().address()).await;
    let here = client(&network.url(&store.pooler().url())).await;
    take(&here, numbered(1)).await.release().await.unwrap();
    network.delay(DELAY);
    let asked = boottime();
    let acquiring = {
        let here = here.clone();
        tokio::spawn(async move { take(&here, order()).await })
    };
    sleep(DELAY + DELAY / 2).await;
    // The server has the request. No renewal reaches it.
    network.hold(Direction::ToServer);
    let guard = acquiring.await.unwrap();
    let ended = Ended::of(Arc::new(guard)).await;
    let lasted = Duration::from_nanos(ended.last_valid - asked);
    // Sent when it was asked for, or a moment later.
    assert!(lasted < LEASE - MARGIN + DELAY, "{lasted:?}");
}

/// The address leads to a standby, as after a fail-over that a pooler has not followed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_on_a_server_that_only_reads_now_is_lost_for_that() {
    let server = PostgresServer::start().await;
    let network = Proxy::to(server.address()).await;
    let here = client(&network.url(&server.url())).await;
    let standby = server.standby().await;
    let guard = take(&here, order()).await;
    standby.catch_up_with(&server).await;
    server.kill().await;
    network.lead_to(standby.address());
    assert_eq!(guard.lost().await, LossReason::ReadOnly);
    let lock = here.lock(numbered(1)).unwrap();
    let refused = lock.acquire(ZERO).await.unwrap_err();
    assert!(refused.is_unavailable(), "{refused}");
    assert!(refused.to_string().contains("standby"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_keeps_leases_and_grants_after_one() {
    let lease = LEASE * 5;
    let server = PostgresServer::start().await;
    let network = Proxy::to(server.address()).await;
    let url = network.url(&server.url());
    let (here, there) = (client_for(&url, lease).await, client_for(&url, lease).await);
    let standby = server.standby().await;
    let guard = take(&here, order()).await;
    standby.catch_up_with(&server).await;
    // The standby does not learn of it.
    standby.kill().await;
    let lacking = take(&here, numbered(1)).await;
    let newest = lacking.fencing_token().await.unwrap();
    server.kill().await;
    network.lead_to(standby.address());
    standby.restart().await;
    standby.promote().await;
    let promoted = Instant::now();
    assert_eq!(lacking.lost().await, LossReason::Revoked);
    assert!(guard.is_valid(), "the standby has its row");
    let next = acquire(&there, numbered(1), PATIENCE).await;
    // Its lease may have begun that much earlier.
    assert!(promoted.elapsed() + lease / 3 > lease, "{promoted:?}");
    assert!(next.fencing_token().await.unwrap() > newest);
    assert!(is_held(&there, 42).await && guard.is_valid());
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_clock_put_forward_costs_locks_and_a_lease() {
    let server = PostgresServer::options().own_clock().start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&here, order()).await;
    let before = guard.fencing_token().await.unwrap();
    server.put_clock(STEP);
    let put = Instant::now();
    assert_eq!(guard.lost().await, LossReason::Expired);
    // The row has expired; also a client that knows of no jump keeps to the quarantine.
    let new = client(&server.url()).await;
    assert!(is_held(&new, 42).await && is_held(&there, 1).await);
    let next = acquire(&there, order(), PATIENCE).await;
    assert!(put.elapsed() + BOUND > LEASE, "{:?}", put.elapsed());
    assert!(next.fencing_token().await.unwrap() > before);
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_clock_put_back_costs_no_lock_and_no_token() {
    let server = PostgresServer::options().own_clock().start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&here, order()).await;
    let before = guard.fencing_token().await.unwrap();
    server.put_clock(-STEP);
    sleep(LEASE * 2).await;
    assert!(guard.is_valid() && is_held(&there, 42).await);
    guard.release().await.unwrap();
    let next = acquire(&there, order(), PATIENCE).await;
    assert!(next.fencing_token().await.unwrap() > before);
    next.release().await.unwrap();
}

/// What a network has held up arrives when the caller has long been refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_that_arrives_late_leaves_no_lock() {
    let store = LeaseTableStore::open().await;
    let network = Proxy::to(store.pooler().address()).await;
    let url = network.url(&store.pooler().url());
    let (here, there) = (client(&url).await, store.client().await);
    network.hold(Direction::ToServer);
    let lock = here.lock(order()).unwrap();
    let refused = lock.acquire(ZERO).await.unwrap_err();
    assert!(refused.is_unavailable(), "{refused}");
    sleep(LEASE * 2).await;
    network.heal().await;
    for _ in 0..20 {
        let guard = there.lock(order()).unwrap().try_acquire(ZERO).await;
        guard.unwrap().expect("it is free").release().await.unwrap();
        sleep(LEASE / 20).await;
    }
}
