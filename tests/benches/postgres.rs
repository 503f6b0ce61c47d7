//! PostgreSQL locks beside those of sqlx, on one private server, printed as a table:
//! `cargo bench -p lock-tests --bench postgres`.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails ends")]

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use lock_core::LockProvider;
use lock_core::postgres::PostgresBackend;
use lock_tests::child::Child;
use lock_tests::comparison::{
    Names, Observed, ROUNDS, compare_cycles, compare_hand_overs, hand_overs, measure_at_a_distance,
    measure_many, measure_starvation, median, peer_hand_overs, row, title,
};
use lock_tests::servers::{Proxy, Server};
use lock_tests::{PostgresStore, Store};
use rustix::process::Pid;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgAdvisoryLock, PgAdvisoryLockGuard, PgAdvisoryLockKey, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, Postgres};
use tokio::time::sleep;

const LOCKER: &str = env!("CARGO_BIN_EXE_locker");

/// How many connections the peer has.
const POOL: u32 = 16;

/// How many tasks of this process want one name.
const CONTENDERS: usize = 100;

/// Hand-overs of each.
const HAND_OVERS: usize = 500;

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

    let server = Observation(&store);

    title("sqlx, pool 16");
    for (tasks, ours, theirs) in [
        (1, 2_000, 1_000),
        (64, 60_000, 10_000),
        (1_024, 200_000, 10_000),
    ] {
        let peer = |task| peer_cycle(pool.clone(), task);
        let tasks = (tasks, Names::Own);
        compare_cycles(&server, tasks, (&locks, ours), (peer, theirs)).await;
    }
    let peer = |task| peer_cycle(pool.clone(), task);
    let tasks = (CONTENDERS, Names::One);
    compare_cycles(&server, tasks, (&locks, 10_000), (peer, 5_000)).await;
    let mut by_hand = Vec::new();
    for _ in 0..ROUNDS {
        by_hand.push(cycles_by_hand(&store).await);
    }
    let by_hand = format!("{:.0}", median(by_hand));
    row("  the two statements alone, 1 connection", by_hand, "");
    row("connections", server.connections().await, pool.size());

    let mut child = Child::start(LOCKER, &store.address().unwrap()).await;
    let ours = hand_overs(HAND_OVERS, &locks, &mut child).await;
    measure_starvation(CONTENDERS, 50, &locks, &mut child).await;
    let proxy = Proxy::to(store.server.address()).await;
    let far = PostgresBackend::connect(&proxy.url(&store.server.url())).await;
    measure_at_a_distance(&proxy, &LockProvider::new(far.unwrap())).await;
    drop(proxy);
    let lock = PgAdvisoryLock::with_key(PgAdvisoryLockKey::BigInt(0));
    let acquire = async || {
        let connection = pool.acquire().await.unwrap();
        lock.acquire(connection).await.unwrap()
    };
    let release = async |guard: PgAdvisoryLockGuard<PoolConnection<Postgres>>| {
        guard.release_now().await.unwrap();
    };
    compare_hand_overs(ours, peer_hand_overs(HAND_OVERS, acquire, release).await);

    let other = LockProvider::new(store.backend().await);
    measure_many(&server, &locks, &other).await;
}

/// What the server and this machine allow one task: two statements on a connection, one after the
/// other, and nothing else.
async fn cycles_by_hand(store: &PostgresStore) -> f64 {
    const CYCLES: usize = 2_000;
    let mut connection = PgConnection::connect(&store.server.url()).await.unwrap();
    let started = Instant::now();
    for key in 0..CYCLES {
        for sql in [
            "SELECT pg_try_advisory_lock($1)",
            "SELECT pg_advisory_unlock($1)",
        ] {
            let done: bool = sqlx::query_scalar(sql)
                .bind(key as i64)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert!(done);
        }
    }
    CYCLES as f64 / started.elapsed().as_secs_f64()
}

fn peer_cycle(pool: PgPool, task: usize) -> impl Fn() -> BoxFuture<'static, ()> {
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

struct Observation<'a>(&'a PostgresStore);

impl Observed for Observation<'_> {
    fn processes(&self) -> Vec<Pid> {
        self.0.server.processes()
    }

    async fn connections(&self) -> usize {
        self.0.sessions().await.try_into().unwrap()
    }

    /// By the server's log.
    async fn statements(&self, during: Duration) -> usize {
        const LOGGED: &str = "log_min_duration_statement";
        let server = &self.0.server;
        server.set(LOGGED, "0").await.unwrap();
        let before = executed(&server.log());
        sleep(during).await;
        let executed = executed(&server.log()) - before;
        server.set(LOGGED, "-1").await.unwrap();
        executed
    }
}

fn executed(log: &str) -> usize {
    let ours = log
        .lines()
        .filter(|line| line.contains("distributed_lock") && line.contains(" execute "));
    ours.count()
}
