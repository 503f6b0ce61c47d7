//! Statements that stand still, wait for others, are cancelled or fail half-way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lock_core::postgres::{KeyScheme, PostgresBuilder};
use lock_core::{LockGuard, LockName, LockProvider};
use lock_tests::{Lateness, PostgresStore, Store, eventually};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::ghost::Ghost;
use crate::support::{HeldUp, LEASE, PATIENCE, acquire, builder, numbered, order, take};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_frozen_inside_a_statement_is_ended_in_time() {
    let store = PostgresStore::open().await;
    let client = store.client().await;
    let mut waiters = JoinSet::new();
    // At any moment between two looks.
    for number in 0..4 {
        let name = numbered(number);
        let holder = Ghost::holding(&store.server, "distributed_lock", "lease 2000", &name);
        let (mut holder, lock) = (holder.await, client.lock(&name).unwrap());
        waiters.spawn(async move {
            let in_time = Lateness::of(LEASE + Duration::from_secs(1));
            holder.stop_inside_a_statement().await;
            drop(lock.acquire(PATIENCE).await.unwrap());
            in_time.at_most(Duration::ZERO).await;
        });
        tokio::time::sleep(Duration::from_millis(230)).await;
    }
    while let Some(granted) = waiters.join_next().await {
        granted.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_holder_is_ended_where_callers_only_try() {
    let store = PostgresStore::open().await;
    let client = store.client().await;
    for claims in [false, true] {
        let name = order();
        let holder = Ghost::holding(&store.server, "distributed_lock", "lease 2000", &name);
        let mut holder = holder.await;
        holder.stop_inside_a_statement().await;
        let granted = timeout(PATIENCE, async {
            loop {
                let granted = if claims {
                    client.claim([name.clone()], 1).await.unwrap().pop()
                } else {
                    let lock = client.lock(&name).unwrap();
                    lock.try_acquire(Duration::ZERO).await.unwrap()
                };
                if let Some(granted) = granted {
                    return granted;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let granted = granted.await.expect("the holder is never ended");
        granted.release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_others_are_left_alone_inside_a_statement() {
    let store = PostgresStore::open().await;
    let client = store.client().await;
    let mut holders = Vec::new();
    for (number, application_name, lease) in [
        (1, "distributed_lock", "lease 60000"),
        (2, "somebody_else", "lease 2000"),
        (3, "distributed_lock", "lease 2000"),
    ] {
        let name = numbered(number);
        let mut holder = Ghost::holding(&store.server, application_name, lease, &name).await;
        holder.stop_inside_a_statement().await;
        holders.push(holder);
    }
    let mut waiters = JoinSet::new();
    for number in 1..=3 {
        let lock = client.lock(numbered(number)).unwrap();
        waiters.spawn(async move { (number, lock.acquire(PATIENCE).await) });
    }
    // The one of our kind goes, the others stay, looked at several times.
    let (number, granted) = waiters.join_next().await.unwrap().unwrap();
    assert_eq!(number, 3);
    drop(granted.unwrap());
    let another = timeout(LEASE, waiters.join_next()).await;
    assert!(another.is_err(), "{another:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_releases_do_not_wait_for_a_standby() {
    let store = PostgresStore::open().await;
    let nobody = ("synchronous_standby_names", "nobody");
    store.server.set(nobody.0, nobody.1).await.unwrap();
    let (holder, other) = (store.client().await, store.client().await);
    // What waits for the standby waits for as long as its session.
    for _ in 0..3 {
        let guard = take(&holder, order()).await;
        guard.fencing_token().await.unwrap();
        let lock = other.lock(order()).unwrap();
        let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
        eventually("it waits", || async { store.advisory_locks().await == 4 }).await;
        guard.release().await.unwrap();
        let guard = waiter.await.unwrap().unwrap();
        guard.fencing_token().await.unwrap();
        guard.release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_does_not_wait_for_notifications_of_others() {
    let store = PostgresStore::open().await;
    let (holder, other) = (store.client().await, store.client().await);
    let guard = take(&holder, order()).await;
    let lock = other.lock(order()).unwrap();
    let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    eventually("it waits", || async { store.advisory_locks().await == 4 }).await;

    let held_up = HeldUp::on(&store.server).await;
    let in_time = Lateness::of(Duration::from_millis(500));
    guard.release().await.unwrap();
    in_time.at_most(Duration::ZERO).await;
    let granted = waiter.await.unwrap().unwrap();
    assert!(granted.is_valid());
    held_up.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_statements_cost_no_guard_and_leave_no_lock() {
    cancel_statements(|builder| builder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_statements_leave_no_lock_whose_key_is_a_pair() {
    let pairs = |name: &LockName| name.as_str().replace("order:process:", "");
    cancel_statements(|builder| builder.keys(KeyScheme::Medallion).key_text(pairs)).await;
}

/// Processes that stand still until this is dropped.
struct Still<'a>(&'a [i32]);

impl<'a> Still<'a> {
    fn stop(processes: &'a [i32]) -> Self {
        let still = Self(processes);
        still.all(Signal::STOP);
        still
    }

    fn all(&self, signal: Signal) {
        for process in self.0 {
            // It may have ended.
            let _ = kill_process(Pid::from_raw(*process).unwrap(), signal);
        }
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        self.all(Signal::CONT);
    }
}

async fn cancel_statements(with_keys: impl FnOnce(PostgresBuilder) -> PostgresBuilder) {
    /// How many statements are to fail.
    const REFUSED: u32 = 5;
    let store = PostgresStore::open().await;
    let backend = with_keys(builder(&store.server)).connect().await.unwrap();
    let locks = LockProvider::new(backend);
    let guard = take(&locks, order()).await;
    let refused = Arc::new(AtomicU32::new(0));
    let mut load = JoinSet::new();
    for task in 0..16 {
        let (locks, refused) = (locks.clone(), Arc::clone(&refused));
        load.spawn(async move {
            while refused.load(Ordering::Relaxed) < REFUSED {
                // Each name is asked for by two.
                let lock = locks.lock(numbered(100 + task / 2)).unwrap();
                match lock.acquire(Duration::from_secs(5)).await {
                    Ok(guard) if task % 2 == 0 => drop(guard),
                    Ok(guard) => guard.release().await.unwrap(),
                    Err(error) if error.is_unavailable() => {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
    // Long enough to be cancelled in their middle.
    for task in 0..2 {
        let (locks, refused) = (locks.clone(), Arc::clone(&refused));
        load.spawn(async move {
            let names = (0..1_000).map(|number| numbered(1_000 * (10 * task + 1) + number));
            let names: Vec<_> = names.collect();
            while refused.load(Ordering::Relaxed) < REFUSED {
                match locks.claim(names.clone(), names.len()).await {
                    Ok(claimed) => {
                        let releases = claimed.into_iter().map(LockGuard::release);
                        for released in join_all(releases).await {
                            released.unwrap();
                        }
                    }
                    Err(error) if error.is_unavailable() => {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
    let pid = sqlx::query_scalar::<_, i32>(
        "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^distributed_lock( |$)'",
    );
    let pid = pid.fetch_all(&store.pool).await.unwrap();
    let pool = store.pool.clone();
    let (aims, of_aiming) = (pool.clone(), pid.clone());
    let mut cancelling = JoinSet::new();
    cancelling.spawn(async move {
        loop {
            let cancel = sqlx::query("SELECT pg_cancel_backend(pid) FROM unnest($1) AS t(pid)");
            let asked = Instant::now();
            cancel.bind(&pid).execute(&pool).await.unwrap();
            // Time for the session to find out what is left, as a statement takes it now: it is ended if it
            // never can.
            let some = Duration::from_millis(fastrand::u64(5..40));
            tokio::time::sleep(some + 4 * asked.elapsed()).await;
        }
    });
    // What is done for many names, and fails with its statement, is seldom hit by chance: the session stands still while
    // it is looked at.
    cancelling.spawn(async move {
        loop {
            let still = Still::stop(&of_aiming);
            let cancel = sqlx::query(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
                 WHERE pid = ANY ($1) AND state = 'active' AND query LIKE '%LIMIT $3%'",
            );
            // Where it stands, it may keep the server from an answer.
            let looking = cancel.bind(&of_aiming).execute(&aims);
            let cancelled = timeout(Duration::from_millis(200), looking).await;
            drop(still);
            let is_hit = cancelled.is_ok_and(|cancelled| cancelled.unwrap().rows_affected() > 0);
            let pause = if is_hit { 40 } else { 5 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    });
    // A busy machine takes its time: what ends this if it never comes is the limit of the runner.
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    cancelling.shutdown().await;
    assert!(guard.is_valid(), "the session lives");
    assert_eq!(store.sessions().await, 1);
    eventually("only the guard and the marker are left", || async {
        store.advisory_locks().await == 2
    })
    .await;
    guard.release().await.unwrap();
    for number in 100..108 {
        drop(acquire(&locks, numbered(number), Duration::from_secs(5)).await);
    }
}
