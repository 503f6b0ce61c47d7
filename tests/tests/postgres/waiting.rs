//! Who waits is woken, and only who waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lock_core::{LockGuard, LockName};
use lock_tests::servers::Proxy;
use lock_tests::{Lateness, PostgresStore, Store, eventually};
use sha2::{Digest, Sha256};
use sqlx::postgres::PgListener;
use tokio::task::JoinSet;

use crate::support::{PATIENCE, acquire, child, client, key, numbered, order, take};

/// How often those who wait are tried for without a notification.
const FALLBACK: Duration = Duration::from_millis(300);

/// How many names a process registers for one by one.
const REGISTERED: usize = 512;

/// The key under which those who wait for a lock are registered, as it is documented.
fn waiters_key(name: &LockName) -> i64 {
    let digest = Sha256::digest(format!("lock-postgres-v1\0\0{name}"));
    i64::from_be_bytes(digest[8..16].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_in_another_process_is_told_of_the_release() {
    const ROUNDS: u32 = 25;
    let store = PostgresStore::open().await;
    let (here, mut there) = (store.client().await, child(&store).await);
    let is_awaited = || async { store.advisory_locks().await == 4 };
    let mut handing_over = Duration::ZERO;
    let mut guard = take(&here, order()).await;
    for _ in 0..ROUNDS {
        there.tell(&format!("acquire {} 30000", order())).await;
        eventually("they wait there", is_awaited).await;
        let late = Lateness::of(Duration::ZERO);
        guard.release().await.unwrap();
        assert_eq!(there.answer().await, "granted");
        handing_over += late.by_now();

        let lock = here.lock(order()).unwrap();
        let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
        eventually("we wait here", is_awaited).await;
        let late = Lateness::of(Duration::ZERO);
        there.release().await;
        guard = waiter.await.unwrap().unwrap();
        handing_over += late.by_now();
    }
    // By the fallback it would be half of it on average.
    assert!(handing_over < FALLBACK * ROUNDS * 2 / 5, "{handing_over:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_nobody_waits_for_notifies_nobody() {
    let store = PostgresStore::open().await;
    let (holder, waiter) = (store.client().await, store.client().await);
    let mut listener = PgListener::connect_with(&store.pool).await.unwrap();
    listener.listen("distributed_lock").await.unwrap();
    for number in 0..20 {
        let (one, other) = (
            take(&holder, numbered(number)).await,
            numbered(100 + number),
        );
        let other = take(&waiter, other).await;
        one.release().await.unwrap();
        drop(other);
    }
    eventually("all is released", || async {
        store.advisory_locks().await == 2
    })
    .await;

    let guard = take(&holder, order()).await;
    let lock = waiter.lock(order()).unwrap();
    let waits = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    eventually("it waits", || async { store.advisory_locks().await == 4 }).await;
    guard.release().await.unwrap();
    drop(waits.await.unwrap().unwrap());
    let first = listener.recv().await.unwrap();
    let key = format!("{:x}", key("", &order()));
    assert_eq!(first.payload(), key, "the first that was ever told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_has_left_is_not_registered_any_more() {
    let store = PostgresStore::open().await;
    let (holder, waiter) = (store.client().await, store.client().await);
    let _guard = take(&holder, order()).await;
    let lock = waiter.lock(order()).unwrap();
    let tried = lock.try_acquire(Duration::from_millis(50)).await;
    assert!(tried.unwrap().is_none());
    eventually("whose time was over is gone", || async {
        store.advisory_locks().await == 3
    })
    .await;
    let waits = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    eventually("it waits", || async { store.advisory_locks().await == 4 }).await;
    waits.abort();
    eventually("who was dropped is gone", || async {
        store.advisory_locks().await == 3
    })
    .await;
}

/// Of guards that another session waits for those whose waiters are registered by name, and those
/// whose waiters are registered for everything; once all of them are.
async fn told_and_untold(
    store: &PostgresStore,
    guards: Vec<LockGuard>,
) -> (Vec<LockGuard>, Vec<LockGuard>) {
    // Held, registered, registered for everything, and the markers of two sessions.
    let all = i64::try_from(guards.len() + REGISTERED + 1 + 2).unwrap();
    eventually("all wait", || async { store.advisory_locks().await == all }).await;
    let registered: Vec<i64> = sqlx::query_scalar(
        "SELECT (classid::int8 << 32) | objid::int8 FROM pg_locks \
         WHERE locktype = 'advisory' AND objsubid = 1 AND mode = 'ShareLock'",
    )
    .fetch_all(&store.pool)
    .await
    .unwrap();
    let is_told = |guard: &LockGuard| registered.contains(&waiters_key(guard.name()));
    let (told, untold): (Vec<_>, Vec<_>) = guards.into_iter().partition(is_told);
    assert_eq!(told.len(), REGISTERED);
    (told, untold)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_beyond_the_registrations_are_told_as_well() {
    const NAMES: usize = 560;
    let store = PostgresStore::open().await;
    let (holder, waiter) = (store.client().await, store.client().await);
    let names: Vec<_> = (0..NAMES).map(numbered).collect();
    let guards = holder.claim(names.clone(), NAMES).await.unwrap();
    assert_eq!(guards.len(), NAMES);
    let mut waits = JoinSet::new();
    for name in &names {
        let lock = waiter.lock(name).unwrap();
        waits.spawn(async move { lock.acquire(PATIENCE).await });
    }
    let (told, untold) = told_and_untold(&store, guards).await;
    let mut handing_over = Duration::ZERO;
    let mut granted = Vec::new();
    for guard in untold {
        let late = Lateness::of(Duration::ZERO);
        guard.release().await.unwrap();
        granted.push(waits.join_next().await.unwrap().unwrap().unwrap());
        handing_over += late.by_now();
    }
    let count = u32::try_from(granted.len()).unwrap();
    assert!(handing_over < FALLBACK * count / 5, "{handing_over:?}");
    drop(told);
    while let Some(guard) = waits.join_next().await {
        granted.push(guard.unwrap().unwrap());
    }
    assert_eq!(granted.len(), NAMES);
    drop(granted);
    eventually("nothing is left", || async {
        store.advisory_locks().await == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_ends_with_a_transaction_is_had_by_the_fallback() {
    let store = PostgresStore::open().await;
    let backend = store.backend().await;
    let client = store.client().await;
    let mut tx = store.pool.begin().await.unwrap();
    backend
        .lock_in_transaction(&mut tx, &order(), Duration::ZERO)
        .await
        .unwrap();
    let lock = client.lock(order()).unwrap();
    let waits = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    eventually("it waits", || async { store.advisory_locks().await == 3 }).await;
    tx.commit().await.unwrap();
    let late = Lateness::of(Duration::ZERO);
    drop(waits.await.unwrap().unwrap());
    late.at_most(FALLBACK * 4).await;
    drop(acquire(&client, order(), PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_that_travel_together_tell_all_who_wait() {
    const NAMES: usize = 100;
    const ROUNDS: u32 = 10;
    let store = PostgresStore::open().await;
    let (holder, waiter) = (store.client().await, store.client().await);
    let names: Vec<_> = (0..NAMES).map(numbered).collect();
    let mut handing_over = Duration::ZERO;
    for _ in 0..ROUNDS {
        let guards = holder.acquire_all(names.clone(), PATIENCE).await.unwrap();
        let mut waits = JoinSet::new();
        for name in &names {
            let lock = waiter.lock(name).unwrap();
            waits.spawn(async move { lock.acquire(PATIENCE).await.unwrap() });
        }
        let all = i64::try_from(NAMES + NAMES + 2).unwrap();
        eventually("all wait", || async { store.advisory_locks().await == all }).await;
        let late = Lateness::of(Duration::ZERO);
        drop(guards);
        let granted = waits.join_all().await;
        handing_over += late.by_now();
        drop(granted);
        eventually("nothing is left", || async {
            store.advisory_locks().await == 2
        })
        .await;
    }
    assert!(handing_over < FALLBACK * ROUNDS * 2 / 5, "{handing_over:?}");
}

/// Those beyond the registrations: a release tells them all, and not whom of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_process_lets_in_those_who_wait_for_more_than_can_be_registered() {
    const NAMES: usize = REGISTERED + 8;
    /// How often the busy process takes a lock at most that another process waits for.
    const TURNS: u32 = 200;
    /// How long it has it.
    const WORK: Duration = Duration::from_millis(20);
    let store = PostgresStore::open().await;
    let (busy, network) = (
        store.client().await,
        Proxy::to(store.server.address()).await,
    );
    let waiter = client(&network.url(&store.server.url())).await;
    // The busy process has its lock back before the other can have heard that it was free.
    network.delay(Duration::from_millis(1));
    let names: Vec<_> = (0..NAMES).map(numbered).collect();
    let guards = busy.claim(names.clone(), NAMES).await.unwrap();
    let turns: Arc<HashMap<_, _>> = Arc::new(
        (names.iter())
            .map(|name| (name.clone(), AtomicU32::new(0)))
            .collect(),
    );
    let mut waits = JoinSet::new();
    for name in names {
        let (lock, turns) = (waiter.lock(&name).unwrap(), Arc::clone(&turns));
        waits.spawn(async move {
            let guard = lock.acquire(PATIENCE).await.unwrap();
            let turns = turns[&name].load(Ordering::Relaxed);
            guard.release().await.unwrap();
            turns
        });
    }
    let (told, untold) = told_and_untold(&store, guards).await;
    let mut work = JoinSet::new();
    for guard in &untold {
        // Two, so that one of them always waits in line.
        for _ in 0..2 {
            let (lock, turns) = (busy.lock(guard.name()).unwrap(), Arc::clone(&turns));
            let name = guard.name().clone();
            work.spawn(async move {
                loop {
                    let guard = lock.acquire(PATIENCE).await.unwrap();
                    turns[&name].fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(WORK).await;
                    guard.release().await.unwrap();
                }
            });
        }
    }
    let count = untold.len();
    drop(untold);
    let mut waited = Vec::new();
    for _ in 0..count {
        waited.push(waits.join_next().await.unwrap().unwrap());
    }
    let most = waited.iter().max().unwrap();
    assert!(*most <= TURNS, "they have waited for {waited:?} turns");
    assert!(work.try_join_next().is_none(), "the busy process goes on");
    drop(told);
}
