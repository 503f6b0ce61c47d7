//! PostgreSQL locks beside those of sqlx, on one private server, printed as a table:
//! `cargo bench -p lock-tests --bench postgres`.
//!
//! Rounds of either alternate, so that what else the machine does hits both; medians are shown.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and one that fails ends"
)]

use std::time::{Duration, Instant};

use lock_core::postgres::PostgresBackend;
use lock_core::{LockGuard, LockName, LockProvider};
use lock_tests::child::Child;
use lock_tests::servers::Server;
use lock_tests::{PostgresStore, Store, boottime};
use sqlx::PgPool;
use sqlx::postgres::{PgAdvisoryLock, PgAdvisoryLockKey, PgPoolOptions};
use tokio::task::JoinSet;

const LOCKER: &str = env!("CARGO_BIN_EXE_locker");

/// How many connections the peer has.
const POOL: u32 = 16;

/// Rounds of each.
const ROUNDS: usize = 5;

/// Hand-overs of each.
const HAND_OVERS: usize = 500;

/// How many locks are held and waited for.
const MANY: usize = 10_000;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() {
    // `cargo test --benches` only looks whether it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let store = PostgresStore::open().await;
    let backend = PostgresBackend::connect(&store.server.url()).await.unwrap();
    let locks = LockProvider::new(backend);
    let pool = PgPoolOptions::new().max_connections(POOL);
    let pool = pool.connect(&store.server.url()).await.unwrap();

    println!(
        "{:<44}{:>12}{:>14}{:>8}",
        "", "lock-core", "sqlx, pool 16", "ratio"
    );
    for (tasks, ours, theirs) in [
        (1, 2_000, 1_000),
        (64, 60_000, 10_000),
        (1_024, 200_000, 10_000),
    ] {
        let mut rates = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            rates
                .0
                .push(cycles(tasks, ours, |name| cycle(locks.clone(), name)).await);
            rates
                .1
                .push(cycles(tasks, theirs, |name| peer_cycle(pool.clone(), name)).await);
        }
        let (ours, theirs) = (median(rates.0), median(rates.1));
        let what = format!("acquire + release a second, {tasks} tasks");
        println!(
            "{what:<44}{ours:>12.0}{theirs:>14.0}{:>7.1}x",
            ours / theirs
        );
    }
    println!(
        "{:<44}{:>12}{:>14}",
        "connections",
        store.sessions().await,
        pool.size()
    );

    let (ours, theirs) = (
        hand_overs(&store, &locks).await,
        peer_hand_overs(&pool).await,
    );
    for (what, at) in [("p50", 50), ("p99", 99)] {
        let at = |times: &[u64]| times[times.len() * at / 100] as f64 / 1_000.0;
        let what = format!("release -> acquired by a waiter, {what}, us");
        println!("{what:<44}{:>12.0}{:>14.0}", at(&ours), at(&theirs));
    }
    println!("  (ours in another process; the peer in this one, on a connection of its own)");

    let started = Instant::now();
    let held = hold(&locks, MANY).await;
    println!(
        "{:<44}{:>12.0}",
        "10,000 taken by 10,000 tasks, ms",
        millis(started)
    );
    println!("{:<44}{:>12}", "connections then", store.sessions().await);
    println!(
        "{:<44}{:>12.1}",
        "statements a second, idle, 10,000 held",
        statements(&store).await
    );
    let other = LockProvider::new(store.backend().await);
    let mut waiting = wait(&other, 1_000);
    println!(
        "{:<44}{:>12.1}",
        "statements a second, 1,000 names awaited",
        statements(&store).await
    );
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
    let mut waiting = wait(&other, MANY);
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!(
        "{:<44}{:>12.1}",
        "statements a second, 10,000 names awaited",
        statements(&store).await
    );
    println!(
        "{:<44}{:>12}",
        "connections then, of two processes",
        store.sessions().await
    );
    let started = Instant::now();
    drop(held);
    while waiting.join_next().await.is_some() {}
    println!(
        "{:<44}{:>12.0}",
        "10,000 handed over to 10,000 waiters, ms",
        millis(started)
    );
}

fn name(number: usize) -> LockName {
    LockName::new("order", "process", number).unwrap()
}

fn millis(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1_000.0
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Cycles a second of so many tasks, each on a name of its own.
async fn cycles<C, F>(tasks: usize, cycles: usize, cycle: impl Fn(usize) -> C) -> f64
where
    C: Fn() -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let mut running = JoinSet::new();
    let started = Instant::now();
    for task in 0..tasks {
        let cycle = cycle(task);
        running.spawn(async move {
            for _ in 0..cycles / tasks {
                cycle().await;
            }
        });
    }
    running.join_all().await;
    (cycles / tasks * tasks) as f64 / started.elapsed().as_secs_f64()
}

fn cycle(
    locks: LockProvider,
    task: usize,
) -> impl Fn() -> futures_util::future::BoxFuture<'static, ()> {
    let lock = locks.lock(name(task)).unwrap();
    move || {
        let lock = lock.clone();
        Box::pin(async move {
            let guard = lock.acquire(PATIENCE).await.unwrap();
            guard.release().await.unwrap();
        })
    }
}

fn peer_cycle(
    pool: PgPool,
    task: usize,
) -> impl Fn() -> futures_util::future::BoxFuture<'static, ()> {
    move || {
        let pool = pool.clone();
        Box::pin(async move {
            let lock = PgAdvisoryLock::with_key(PgAdvisoryLockKey::BigInt(task as i64));
            let connection = pool.acquire().await.unwrap();
            let guard = lock.acquire(connection).await.unwrap();
            guard.release_now().await.unwrap();
        })
    }
}

/// Nanoseconds from the call of the release to the grant in another process, sorted.
async fn hand_overs(store: &PostgresStore, locks: &LockProvider) -> Vec<u64> {
    let mut child = Child::start(LOCKER, &store.address().unwrap()).await;
    let name = name(0);
    let mut times = Vec::with_capacity(HAND_OVERS);
    for _ in 0..HAND_OVERS {
        let guard = locks.lock(&name).unwrap().acquire(PATIENCE).await.unwrap();
        child.tell(&format!("when {name} 60000")).await;
        // Until it waits.
        tokio::time::sleep(Duration::from_millis(4)).await;
        let released = boottime();
        guard.release().await.unwrap();
        let answer = child.answer().await;
        let granted: u64 = answer.strip_prefix("granted ").unwrap().parse().unwrap();
        times.push(granted - released);
        child.release().await;
    }
    times.sort_unstable();
    times
}

async fn peer_hand_overs(pool: &PgPool) -> Vec<u64> {
    let mut times = Vec::with_capacity(HAND_OVERS);
    let lock = || PgAdvisoryLock::with_key(PgAdvisoryLockKey::BigInt(0));
    for _ in 0..HAND_OVERS {
        let held = lock();
        let guard = held.acquire(pool.acquire().await.unwrap()).await.unwrap();
        let connection = pool.acquire().await.unwrap();
        let waiter = tokio::spawn(async move {
            let lock = lock();
            let guard = lock.acquire(connection).await.unwrap();
            let granted = boottime();
            guard.release_now().await.unwrap();
            granted
        });
        tokio::time::sleep(Duration::from_millis(4)).await;
        let released = boottime();
        guard.release_now().await.unwrap();
        times.push(waiter.await.unwrap() - released);
    }
    times.sort_unstable();
    times
}

async fn hold(locks: &LockProvider, count: usize) -> Vec<LockGuard> {
    let mut taking = JoinSet::new();
    for number in 0..count {
        let lock = locks.lock(name(number)).unwrap();
        taking.spawn(async move { lock.acquire(PATIENCE).await.unwrap() });
    }
    taking.join_all().await
}

fn wait(locks: &LockProvider, count: usize) -> JoinSet<()> {
    let mut waiting = JoinSet::new();
    for number in 0..count {
        let lock = locks.lock(name(number)).unwrap();
        waiting.spawn(async move {
            let guard = lock.acquire(Duration::MAX).await.unwrap();
            guard.release().await.unwrap();
        });
    }
    waiting
}

/// Statements a second of all sessions of the library, by the server's log.
async fn statements(store: &PostgresStore) -> f64 {
    const LOGGED: &str = "log_min_duration_statement";
    store.server.set(LOGGED, "0").await.unwrap();
    let (before, started) = (executed(store), Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let rate = (executed(store) - before) as f64 / started.elapsed().as_secs_f64();
    store.server.set(LOGGED, "-1").await.unwrap();
    rate
}

fn executed(store: &PostgresStore) -> usize {
    let log = store.server.log();
    let ours = log
        .lines()
        .filter(|line| line.contains("distributed_lock") && line.contains(" execute "));
    ours.count()
}
