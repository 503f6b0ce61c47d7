//! Our locks beside those of a peer, on one private server: what the benches of the backends with
//! servers share.
//!
//! Rounds of either alternate, so that what else the machine does hits both; medians are shown.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use lock_core::{LockGuard, LockName, LockProvider};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::boottime;
use crate::child::Child;

/// Longer than anything takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Rounds of each.
pub const ROUNDS: usize = 5;

/// Until a waiter waits.
const SETTLED: Duration = Duration::from_millis(4);

/// How many locks are held and waited for.
const MANY: usize = 10_000;

/// For how long statements are counted.
const COUNTED: Duration = Duration::from_secs(10);

/// What a server tells of the clients of this library.
pub trait Observed {
    /// How many connections they have.
    fn connections(&self) -> impl Future<Output = usize>;

    /// How many statements they send during this time.
    fn statements(&self, during: Duration) -> impl Future<Output = usize>;
}

/// Prints the first line of a table.
pub fn title(peer: &str) {
    line("", &"lock-core", &peer, "ratio");
}

/// Prints a line of a table.
pub fn row(what: &str, ours: impl Display, theirs: impl Display) {
    line(what, &ours, &theirs, "");
}

#[allow(clippy::print_stdout, reason = "a benchmark prints")]
fn line(what: &str, ours: &dyn Display, theirs: &dyn Display, ratio: &str) {
    let (ours, theirs) = (ours.to_string(), theirs.to_string());
    println!("{what:<44}{ours:>12}{theirs:>16}{ratio:>8}");
}

/// A cycle of ours: acquire and release, on a name of the task's own.
pub fn cycle(locks: LockProvider, task: usize) -> impl Fn() -> BoxFuture<'static, ()> {
    let lock = locks.lock(name(task)).unwrap();
    move || {
        let lock = lock.clone();
        Box::pin(async move {
            let guard = lock.acquire(PATIENCE).await.unwrap();
            guard.release().await.unwrap();
        })
    }
}

/// Prints how many cycles a second so many tasks make, of ours and of the peer's. Each round has
/// the number of cycles that is given for either.
pub async fn compare_cycles<F, P>(
    tasks: usize,
    locks: &LockProvider,
    cycles_of_ours: usize,
    peer: impl Fn(usize) -> P,
    cycles_of_peer: usize,
) where
    F: Future<Output = ()> + Send,
    P: Fn() -> F + Send + 'static,
{
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(rate(tasks, cycles_of_ours, |task| cycle(locks.clone(), task)).await);
        theirs.push(rate(tasks, cycles_of_peer, &peer).await);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let what = format!("acquire + release a second, {tasks} tasks");
    let ratio = format!("{:.1}x", ours / theirs);
    line(
        &what,
        &format!("{ours:.0}"),
        &format!("{theirs:.0}"),
        &ratio,
    );
}

/// Cycles a second of so many tasks.
async fn rate<C, F>(tasks: usize, cycles: usize, cycle: impl Fn(usize) -> C) -> f64
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

/// Nanoseconds from the call of the release here to the grant in the process.
pub async fn hand_overs(times: usize, locks: &LockProvider, mut child: Child) -> Vec<u64> {
    let name = name(0);
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let guard = locks.lock(&name).unwrap().acquire(PATIENCE).await.unwrap();
        child.tell(&format!("when {name} 60000")).await;
        sleep(SETTLED).await;
        let released = boottime();
        guard.release().await.unwrap();
        let answer = child.answer().await;
        let granted: u64 = answer.strip_prefix("granted ").unwrap().parse().unwrap();
        taken.push(granted - released);
        child.release().await;
    }
    taken
}

/// The same of a peer, from one task to another of this process.
pub async fn peer_hand_overs<G>(
    times: usize,
    acquire: impl AsyncFn() -> G,
    release: impl AsyncFn(G),
) -> Vec<u64> {
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let held = acquire().await;
        let waiting = async {
            let guard = acquire().await;
            let granted = boottime();
            release(guard).await;
            granted
        };
        let releasing = async {
            sleep(SETTLED).await;
            let released = boottime();
            release(held).await;
            released
        };
        let (granted, released) = tokio::join!(waiting, releasing);
        taken.push(granted - released);
    }
    taken
}

/// Prints how long hand-overs took.
pub fn compare_hand_overs(mut ours: Vec<u64>, mut theirs: Vec<u64>) {
    ours.sort_unstable();
    theirs.sort_unstable();
    for (what, at) in [("p50", 50), ("p99", 99)] {
        let at = |times: &[u64]| format!("{:.0}", times[times.len() * at / 100] as f64 / 1_000.0);
        let what = format!("release -> acquired by a waiter, {what}, us");
        row(&what, at(&ours), at(&theirs));
    }
    row("  (ours in another process, the peer in this)", "", "");
}

/// Prints what ten thousand locks cost that are held, waited for, and handed over to `other`.
pub async fn measure_many(server: &impl Observed, locks: &LockProvider, other: &LockProvider) {
    let started = Instant::now();
    let held = hold(locks, MANY).await;
    row("10,000 taken by 10,000 tasks, ms", millis(started), "");
    row("connections then", connections(server).await, "");
    row(
        "statements a second, idle, 10,000 held",
        statements(server).await,
        "",
    );
    let mut waiting = wait(other, 1_000);
    row(
        "statements a second, 1,000 names awaited",
        statements(server).await,
        "",
    );
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
    let mut waiting = wait(other, MANY);
    sleep(Duration::from_secs(2)).await;
    row(
        "statements a second, 10,000 names awaited",
        statements(server).await,
        "",
    );
    row(
        "connections then, of two processes",
        connections(server).await,
        "",
    );
    let started = Instant::now();
    drop(held);
    while waiting.join_next().await.is_some() {}
    row(
        "10,000 handed over to 10,000 waiters, ms",
        millis(started),
        "",
    );
}

async fn connections(server: &impl Observed) -> String {
    server.connections().await.to_string()
}

async fn statements(server: &impl Observed) -> String {
    let sent = server.statements(COUNTED).await;
    format!("{:.1}", sent as f64 / COUNTED.as_secs_f64())
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

fn name(number: usize) -> LockName {
    LockName::new("order", "process", number).unwrap()
}

fn millis(started: Instant) -> String {
    format!("{:.0}", started.elapsed().as_secs_f64() * 1_000.0)
}

/// The middle one.
pub fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
