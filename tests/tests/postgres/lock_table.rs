//! The lock table of the server, which all of its clients share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use lock_core::postgres::{PostgresBackend, PostgresBuilder};
use lock_core::{LockError, LockGuard, LockProvider};
use lock_tests::servers::{PostgresServer, Proxy};
use lock_tests::{PostgresStore, Store, eventually};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{PATIENCE, acquire, builder, child, key, numbered, order, take};

/// Room for 25 locks in a quarter of it.
const SMALL: [(&str, &str); 3] = [
    ("max_locks_per_transaction", "10"),
    ("max_connections", "10"),
    ("max_wal_senders", "0"),
];

async fn provider(builder: PostgresBuilder) -> LockProvider {
    LockProvider::new(builder.connect().await.unwrap())
}

/// Takes locks until one is refused; what was taken, and the refusal.
async fn fill(client: &LockProvider) -> (Vec<LockGuard>, LockError) {
    let mut guards = Vec::new();
    loop {
        let lock = client.lock(numbered(1_000 + guards.len())).unwrap();
        match lock.acquire(Duration::ZERO).await {
            Ok(guard) => guards.push(guard),
            Err(error) => return (guards, error),
        }
        assert!(guards.len() < 100_000, "there is no limit");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarter_of_the_lock_table_is_all_that_is_taken() {
    let server = PostgresServer::with(&SMALL).await;
    let client = provider(builder(&server)).await;
    let (mut guards, error) = fill(&client).await;
    assert_eq!(guards.len(), 10 * 10 / 4);
    let waited = client.lock(order()).unwrap();
    let waited = waited.acquire(Duration::from_millis(50)).await.unwrap_err();
    // A claim is no way around it.
    let claimed = client.claim((0..20).map(numbered), 20).await.unwrap_err();
    for error in [error, waited, claimed] {
        assert!(error.is_unavailable(), "{error:?}");
        let told = error.to_string();
        assert!(told.contains("max_locks_per_transaction"), "{told}");
    }
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(PgConnection::connect(&server.url()).await.unwrap());
    }
    assert!(guards.iter().all(LockGuard::is_valid));
    // Places that are given back are there for others.
    for guard in guards.split_off(20) {
        guard.release().await.unwrap();
    }
    let claimed = client.claim((0..20).map(numbered), 20).await.unwrap();
    assert_eq!(claimed.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_ones_own_is_kept() {
    let server = PostgresServer::start().await;
    let client = provider(builder(&server).max_held(3)).await;
    let claimed = client.claim((0..10).map(numbered), 10).await.unwrap();
    assert_eq!(claimed.len(), 3);
    let error = client.lock(order()).unwrap().acquire(Duration::ZERO).await;
    let error = error.unwrap_err();
    assert!(
        error.is_unavailable() && error.to_string().contains("limit is 3"),
        "{error}"
    );
    drop(claimed);
    drop(acquire(&client, order(), PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_lock_table_is_named_and_costs_no_guard() {
    let server = PostgresServer::with(&SMALL).await;
    let pool = server.pool().await;
    let client = provider(builder(&server).max_held(1_000_000)).await;
    let kept = take(&client, order()).await;
    let (guards, error) = fill(&client).await;
    assert!(error.is_unavailable(), "{error:?}");
    let told = error.to_string();
    assert!(
        told.contains("max_locks_per_transaction (now 10)"),
        "{told}"
    );
    assert!(guards.iter().all(LockGuard::is_valid));
    let held = guards.len();
    for guard in guards {
        guard.release().await.unwrap();
    }
    // Nothing is left of the try that failed, nor of a claim that fails half-way.
    let names = (1_000..1_500 + held).map(numbered);
    let error = client.claim(names, held + 500).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    let left = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'",
    );
    assert_eq!(left.fetch_one(&pool).await.unwrap(), 1);
    let (guards, _) = fill(&client).await;
    assert!(guards.len() > held / 2, "{} of {held}", guards.len());
    drop(guards);
    kept.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_beyond_the_limit_gets_its_turn_when_a_lock_is_released() {
    const LIMIT: usize = 3;
    let server = PostgresServer::start().await;
    let client = provider(builder(&server).max_held(LIMIT)).await;
    let held = Arc::new(AtomicUsize::new(0));
    let mut waiters = JoinSet::new();
    for number in 0..4 * LIMIT {
        let (lock, held) = (client.lock(numbered(number)).unwrap(), Arc::clone(&held));
        waiters.spawn(async move {
            let guard = lock.acquire(PATIENCE).await.unwrap();
            assert!(held.fetch_add(1, Ordering::Relaxed) < LIMIT);
            tokio::time::sleep(Duration::from_millis(20)).await;
            held.fetch_sub(1, Ordering::Relaxed);
            guard.release().await.unwrap();
        });
    }
    waiters.join_all().await;
}

/// They are tried for by the driver, which keeps to the limit as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_before_the_limit_was_reached_gets_its_turn_below_it() {
    let store = PostgresStore::open().await;
    let other = store.client().await;
    let client = provider(builder(&store.server).max_held(2)).await;
    let theirs = [
        take(&other, numbered(1)).await,
        take(&other, numbered(2)).await,
    ];
    let mut waiters = JoinSet::new();
    for number in [1, 2] {
        let lock = client.lock(numbered(number)).unwrap();
        waiters.spawn(async move { lock.acquire(PATIENCE).await.unwrap() });
    }
    // Two locks, two registrations, two markers.
    eventually("they wait", || async { store.advisory_locks().await == 6 }).await;
    let ours = [
        take(&client, numbered(3)).await,
        take(&client, numbered(4)).await,
    ];
    for guard in theirs {
        guard.release().await.unwrap();
    }
    // The driver looks at it several times.
    let early = timeout(Duration::from_secs(1), waiters.join_next()).await;
    assert!(early.is_err(), "{early:?}");
    let mut granted = Vec::new();
    for guard in ours {
        guard.release().await.unwrap();
        let next = timeout(PATIENCE, waiters.join_next()).await.unwrap();
        granted.push(next.unwrap().unwrap());
    }
    assert!(granted.iter().all(LockGuard::is_valid));
}

/// The locks of a process that was killed are notified by none: they are found by a try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_beyond_the_limit_are_tried_for_in_turn() {
    let store = PostgresStore::open().await;
    let mut names = [1, 2, 3].map(numbered);
    names.sort_by_key(|name| key("", name));
    let [first, second, last] = &names;
    let holder = store.client().await;
    let _held = (
        take(&holder, first.clone()).await,
        take(&holder, second.clone()).await,
    );
    let mut killed = child(&store).await;
    killed.hold(last).await;
    let client = provider(builder(&store.server).max_held(2)).await;
    let mut waiters = JoinSet::new();
    for name in names {
        let client = client.clone();
        waiters.spawn(async move { acquire(&client, name, PATIENCE * 2).await });
    }
    // Time for each to be refused, and for the fallback to have tried some of them.
    tokio::time::sleep(Duration::from_secs(1)).await;
    killed.kill().await;
    let granted = timeout(PATIENCE / 3, waiters.join_next()).await;
    drop(granted.expect("it is never tried for").unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_at_the_limit_are_no_locks_that_are_held() {
    const NAMES: usize = 20;
    let server = PostgresServer::start().await;
    let holder = provider(builder(&server)).await;
    let held = holder.claim((0..NAMES).map(numbered), NAMES).await.unwrap();
    assert_eq!(held.len(), NAMES);
    let network = Proxy::to(server.address()).await;
    let url = network.url(&server.url());
    let client = provider(PostgresBackend::builder(url).max_held(2)).await;
    // Long enough for all of them to come while the first is on its way.
    network.delay(Duration::from_millis(10));
    let locks = (0..NAMES).map(|number| client.lock(numbered(number)).unwrap());
    let tries = locks.map(|lock| async move { lock.try_acquire(Duration::ZERO).await });
    for tried in join_all(tries).await {
        assert!(tried.unwrap().is_none(), "another holds it");
    }
}
