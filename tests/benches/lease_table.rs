//! A lease table behind PgBouncer in transaction mode, beside a table that plain sqlx polls there, and beside
//! advisory locks of a session without a pooler, on one private server, printed as tables:
//! `cargo bench -p lock-tests --bench lease_table`.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails ends")]

use std::time::Duration;

use futures_util::future::BoxFuture;
use lock_core::postgres::{LeaseTable, PostgresBackend};
use lock_core::{LockGuard, LockProvider};
use lock_tests::child::Child;
use lock_tests::comparison::{
    Names, Observed, PATIENCE, compare_cycles, compare_hand_overs, cycle, hand_overs,
    peer_hand_overs, row, title,
};
use lock_tests::servers::{PgBouncer, Server};
use lock_tests::{LeaseTableStore, PostgresStore, Store};
use rustix::process::Pid;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Executor, PgPool, Row};
use tokio::task::JoinSet;
use tokio::time::sleep;

const LOCKER: &str = env!("CARGO_BIN_EXE_locker");

/// How many connections the peer has to the pooler, and that to the server.
const POOL: u32 = 16;

/// Between the looks of the peer at a lock that is held.
const POLLED: Duration = Duration::from_millis(50);

/// How many tasks work on names of their own, and how many cycles they make in one round: of the table, of the
/// peer, of the session.
const CYCLES: [(usize, usize, usize, usize); 3] = [
    (1, 1_000, 1_000, 2_000),
    (64, 20_000, 5_000, 60_000),
    (1_024, 60_000, 5_000, 200_000),
];

const HAND_OVERS: usize = 300;

/// How many locks are held, and awaited.
const MANY: usize = 1_000;

/// For how long statements are counted: two heartbeats of the lease.
const COUNTED: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() {
    // `cargo test --benches` only looks whether it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let store = PostgresStore::open().await;
    let size = POOL.to_string();
    let settings = [("pool_mode", "transaction"), ("default_pool_size", &size)];
    let bouncer = PgBouncer::with(&store.server, &settings).await;
    let locks = LockProvider::new(LeaseTable::connect(&bouncer.url()).await.unwrap());
    let session = PostgresBackend::connect(&store.server.url()).await.unwrap();
    let session = LockProvider::new(session);
    let polled = PolledTable::make(&bouncer).await;
    let server = Observation {
        store: &store,
        bouncer: &bouncer,
    };

    title("sqlx polls");
    for (tasks, ours, theirs, _) in CYCLES {
        let peer = |task| polled.cycle(task);
        let tasks = (tasks, Names::Own);
        compare_cycles(&server, tasks, (&locks, ours), (peer, theirs)).await;
    }
    row("connections to the pooler", 2, polled.pool.size());

    let (table, url) = (
        LeaseTableStore::address_of(&bouncer.url()),
        store.server.url(),
    );
    let mut child = Child::start(LOCKER, &table).await;
    let by_polling = hand_overs(HAND_OVERS, &locks, &mut child).await;
    drop(child);
    let acquire = async || polled.acquire(0).await;
    let release = async |owner| polled.release(0, owner).await;
    compare_hand_overs(
        by_polling,
        peer_hand_overs(HAND_OVERS, acquire, release).await,
    );

    title("session");
    for (tasks, ours, _, theirs) in CYCLES {
        let peer = |task| cycle(session.clone(), task);
        let tasks = (tasks, Names::Own);
        compare_cycles(&server, tasks, (&locks, ours), (peer, theirs)).await;
    }
    let listening = format!("listening-{}", LeaseTableStore::address_of(&url));
    let mut child = Child::start(LOCKER, &listening).await;
    let with_listen_url = hand_overs(HAND_OVERS, &locks, &mut child).await;
    drop(child);
    let mut child = Child::start(LOCKER, &store.address().unwrap()).await;
    let of_session = hand_overs(HAND_OVERS, &session, &mut child).await;
    drop(child);
    row("with `listen_url`, to another process, of both:", "", "");
    compare_hand_overs(with_listen_url, of_session);

    at_rest(&server, &locks, &bouncer).await;
    dead_tuples(&store.pool, &locks).await;
}

/// Prints how many statements a process sends that holds a thousand locks, and one that waits for them.
async fn at_rest(server: &Observation<'_>, locks: &LockProvider, bouncer: &PgBouncer) {
    let held = hold(locks).await;
    let holding = per_second(server).await;
    let what = format!("statements a second, {MANY} held");
    row(&what, format!("{holding:.2}"), "");
    let waiting = LockProvider::new(LeaseTable::connect(&bouncer.url()).await.unwrap());
    let mut waiters = JoinSet::new();
    for number in 0..MANY {
        let lock = waiting.lock(name(number)).unwrap();
        waiters.spawn(async move { drop(lock.acquire(Duration::MAX).await.unwrap()) });
    }
    sleep(Duration::from_secs(5)).await;
    let both = per_second(server).await;
    let what = format!("  the same, {MANY} awaited by a process");
    row(&what, format!("{:.2}", both - holding), "");
    waiters.shutdown().await;
    drop(held);
}

async fn per_second(server: &Observation<'_>) -> f64 {
    server.statements(COUNTED).await as f64 / COUNTED.as_secs_f64()
}

async fn hold(locks: &LockProvider) -> Vec<LockGuard> {
    let mut taking = JoinSet::new();
    for number in 0..MANY {
        let lock = locks.lock(name(number)).unwrap();
        taking.spawn(async move { lock.acquire(PATIENCE).await.unwrap() });
    }
    taking.join_all().await
}

fn name(number: usize) -> String {
    format!("order:process:{number}")
}

/// Prints what a million cycles leave in the table, with the settings of autovacuum that a server has.
async fn dead_tuples(pool: &PgPool, locks: &LockProvider) {
    const TASKS: usize = 64;
    let mut running = JoinSet::new();
    for task in 0..TASKS {
        let cycle = cycle(locks.clone(), task);
        running.spawn(async move {
            for _ in 0..1_000_000 / TASKS {
                cycle().await;
            }
        });
    }
    running.join_all().await;
    // The server counts with a delay.
    sleep(Duration::from_secs(2)).await;
    let sql = "SELECT n_dead_tup, n_live_tup, 100 * n_tup_hot_upd / greatest(n_tup_upd, 1), \
         pg_total_relation_size(relid) / 1024 FROM pg_stat_user_tables \
         WHERE relname = 'distributed_lock_leases'";
    let found = pool.fetch_one(sql).await.unwrap();
    for (at, what) in [
        "dead rows after a million cycles",
        "  live rows",
        "  updates that touch no index, %",
        "  size of the table and its index, KiB",
    ]
    .into_iter()
    .enumerate()
    {
        row(what, found.get::<i64, _>(at), "");
    }
}

/// A table of leases as one would write it, which is polled: each statement is one message, as it has to be
/// behind a pooler.
#[derive(Clone)]
struct PolledTable {
    pool: PgPool,
}

impl PolledTable {
    async fn make(bouncer: &PgBouncer) -> Self {
        let pool = PgPoolOptions::new().max_connections(POOL);
        let pool = pool.connect(&bouncer.url()).await.unwrap();
        let sql = "CREATE TABLE polled (name text PRIMARY KEY, owner text NOT NULL, until timestamptz NOT NULL)";
        sqlx::raw_sql(sql).execute(&pool).await.unwrap();
        Self { pool }
    }

    async fn acquire(&self, number: usize) -> u64 {
        let owner = fastrand::u64(..);
        let sql = format!(
            "INSERT INTO polled AS l VALUES ('{}', '{owner}', clock_timestamp() + interval '30 s') \
             ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until \
             WHERE l.until <= clock_timestamp() RETURNING name",
            name(number)
        );
        while self.run(&sql).await == 0 {
            sleep(POLLED).await;
        }
        owner
    }

    async fn release(&self, number: usize, owner: u64) {
        let name = name(number);
        let sql = format!("DELETE FROM polled WHERE name = '{name}' AND owner = '{owner}'");
        assert_eq!(self.run(&sql).await, 1);
    }

    async fn run(&self, sql: &str) -> u64 {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool);
        done.await.unwrap().rows_affected()
    }

    fn cycle(&self, task: usize) -> impl Fn() -> BoxFuture<'static, ()> + use<> {
        let table = self.clone();
        move || {
            let table = table.clone();
            Box::pin(async move {
                let owner = table.acquire(task).await;
                table.release(task, owner).await;
            })
        }
    }
}

struct Observation<'a> {
    store: &'a PostgresStore,
    bouncer: &'a PgBouncer,
}

impl Observed for Observation<'_> {
    /// Those of the pooler as well.
    fn processes(&self) -> Vec<Pid> {
        let mut processes = self.store.server.processes();
        processes.extend(self.bouncer.processes());
        processes
    }

    async fn connections(&self) -> usize {
        self.store.sessions().await.try_into().unwrap()
    }

    /// By the server's log: each request is a line that begins as all of them do.
    async fn statements(&self, during: Duration) -> usize {
        const LOGGED: &str = "log_min_duration_statement";
        let server = &self.store.server;
        server.set(LOGGED, "0").await.unwrap();
        let requests = || {
            server
                .log()
                .matches("SET TRANSACTION ISOLATION LEVEL")
                .count()
        };
        let before = requests();
        sleep(during).await;
        let requests = requests() - before;
        server.set(LOGGED, "-1").await.unwrap();
        requests
    }
}
