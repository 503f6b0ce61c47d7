//! Our locks beside those of a peer, on one private server: what the benches of the backends with
//! servers share.
//!
//! Rounds of either alternate, so that what else the machine does hits both; medians are shown. Processor
//! time a cycle depends little on what else the machine does. With `--json` each line is an object.

use std::fmt::Display;
use std::fs;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use lock_core::{DistributedLock, LockGuard, LockName, LockProvider};
use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::boottime;
use crate::child::Child;
use crate::servers::Proxy;

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

/// What a server tells of itself and of the clients of this library.
pub trait Observed {
    /// Its processes.
    fn processes(&self) -> Vec<Pid>;

    /// How many connections they have.
    fn connections(&self) -> impl Future<Output = usize>;

    /// How many statements they send during this time.
    fn statements(&self, during: Duration) -> impl Future<Output = usize>;
}

/// Prints the first lines of a table of locks beside those of a peer.
pub fn title(peer: &str) {
    title_of("lock-core", peer);
}

/// Prints the first lines of a table of one beside another.
pub fn title_of(ours: &str, peer: &str) {
    if is_json() {
        return print_json(&json!({ "peer_name": peer }));
    }
    let cpu = ["client us", "peer", "server us", "peer"];
    print_line("", &[ours, peer, "ratio"], &cpu);
}

/// Prints a line of a table.
pub fn row(what: &str, ours: impl Display, theirs: impl Display) {
    line(what, [ours.to_string(), theirs.to_string()], None);
}

/// Whether each line is to be an object of JSON.
fn is_json() -> bool {
    std::env::args().any(|argument| argument == "--json")
}

#[allow(clippy::print_stdout, reason = "a benchmark prints")]
fn print_json(line: &serde_json::Value) {
    println!("{line}");
}

fn line(what: &str, values: [String; 2], compared: Option<[&Sample; 2]>) {
    if is_json() {
        let [ours, theirs] = values;
        let mut line = json!({ "what": what.trim(), "ours": ours, "peer": theirs });
        if let Some(samples) = compared {
            for (whose, sample) in ["ours", "peer"].iter().zip(samples) {
                line[format!("client_us_{whose}")] = sample.client.into();
                line[format!("server_us_{whose}")] = sample.server.into();
            }
        }
        return print_json(&line);
    }
    let [ours, theirs] = &values;
    let Some([sample, of_peer]) = compared else {
        return print_line(what, &[ours, theirs, ""], &[]);
    };
    let ratio = format!("{:.2}x", sample.rate / of_peer.rate);
    let cpu = [sample.client, of_peer.client, sample.server, of_peer.server];
    let cpu = cpu.map(|micros| format!("{micros:.1}"));
    print_line(
        what,
        &[ours, theirs, &ratio],
        &cpu.each_ref().map(String::as_str),
    );
}

#[allow(clippy::print_stdout, reason = "a benchmark prints")]
fn print_line(what: &str, [ours, theirs, ratio]: &[&str; 3], cpu: &[&str]) {
    print!("{what:<44}{ours:>11}{theirs:>15}{ratio:>8}");
    cpu.iter().for_each(|micros| print!("{micros:>11}"));
    println!();
}

/// A cycle of ours: acquire and release, on a name of the task's own.
pub fn cycle(locks: LockProvider, task: usize) -> impl Fn() -> BoxFuture<'static, ()> {
    cycle_of(locks.lock(name(task)).unwrap())
}

/// The same of a lock in any mode.
pub fn cycle_of(lock: DistributedLock) -> impl Fn() -> BoxFuture<'static, ()> {
    move || {
        let lock = lock.clone();
        Box::pin(async move {
            let guard = lock.acquire(PATIENCE).await.unwrap();
            guard.release().await.unwrap();
        })
    }
}

/// What many cycles took.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Cycles a second.
    pub rate: f64,
    /// Processor time of this process, user and system, in microseconds a cycle.
    pub client: f64,
    /// The same of the server.
    pub server: f64,
}

impl Sample {
    /// The middle of each.
    fn median(samples: &[Self]) -> Self {
        let of = |part: fn(&Self) -> f64| median(samples.iter().map(part).collect());
        Self {
            rate: of(|sample| sample.rate),
            client: of(|sample| sample.client),
            server: of(|sample| sample.server),
        }
    }
}

/// What the tasks of a comparison want.
#[derive(Clone, Copy, Debug)]
pub enum Names {
    /// Each a name of its own.
    Own,
    /// All one name.
    One,
}

/// Prints how many cycles a second so many tasks make, of ours and of the peer's, and what processor time
/// a cycle takes. Each round has the number of cycles that is given for either.
pub async fn compare_cycles<F, P>(
    server: &impl Observed,
    (tasks, names): (usize, Names),
    (locks, cycles_of_ours): (&LockProvider, usize),
    (peer, cycles_of_peer): (impl Fn(usize) -> P, usize),
) where
    F: Future<Output = ()> + Send,
    P: Fn() -> F + Send + 'static,
{
    let (what, name_of): (_, fn(usize) -> usize) = match names {
        Names::Own => ("acquire + release a second", |task| task),
        Names::One => ("the same on one name", |_| 0),
    };
    let ours = |task| cycle(locks.clone(), name_of(task));
    let peer = |task| peer(name_of(task));
    let processes = || server.processes();
    compare(
        (what, processes),
        tasks,
        (ours, cycles_of_ours),
        (peer, cycles_of_peer),
    )
    .await;
}

/// The same of any two. `processes` are those of the server.
pub async fn compare<O, OF, P, PF>(
    (what, processes): (&str, impl Fn() -> Vec<Pid>),
    tasks: usize,
    (ours, cycles_of_ours): (impl Fn(usize) -> O, usize),
    (peer, cycles_of_peer): (impl Fn(usize) -> P, usize),
) where
    O: Fn() -> OF + Send + 'static,
    OF: Future<Output = ()> + Send,
    P: Fn() -> PF + Send + 'static,
    PF: Future<Output = ()> + Send,
{
    let (mut samples, mut of_peer) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        samples.push(sample(&processes, tasks, cycles_of_ours, &ours).await);
        of_peer.push(sample(&processes, tasks, cycles_of_peer, &peer).await);
    }
    let (sample, of_peer) = (Sample::median(&samples), Sample::median(&of_peer));
    let rates = [&sample, &of_peer].map(|sample| format!("{:.0}", sample.rate));
    line(
        &format!("{what}, {tasks} tasks"),
        rates,
        Some([&sample, &of_peer]),
    );
}

/// Runs so many cycles in so many tasks.
async fn sample<C, F>(
    processes: impl Fn() -> Vec<Pid>,
    tasks: usize,
    cycles: usize,
    cycle: impl Fn(usize) -> C,
) -> Sample
where
    C: Fn() -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let mut running = JoinSet::new();
    let (client, of_server) = (own_time(), time_of(&processes()));
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
    let elapsed = started.elapsed();
    let cycles = (cycles / tasks * tasks) as f64;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / cycles;
    Sample {
        rate: cycles / elapsed.as_secs_f64(),
        client: micros(own_time() - client),
        server: micros(time_of(&processes()).saturating_sub(of_server)),
    }
}

/// The processor time of this process.
#[must_use]
pub fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// The processor time of the threads that these processes have, to the nanosecond; `stat` counts ticks.
fn time_of(processes: &[Pid]) -> Duration {
    let threads = processes
        .iter()
        .filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok());
    let times = threads.flatten().filter_map(|thread| {
        let stat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse().ok()
    });
    times.map(Duration::from_nanos).sum()
}

/// Prints how long an acquire and a release take, and how often something is sent for them, where each way
/// takes half a millisecond: `locks` go through `proxy`.
pub async fn measure_at_a_distance(proxy: &Proxy, locks: &LockProvider) {
    const TIMES: usize = 200;
    proxy.delay(Duration::from_micros(500));
    let lock = locks.lock("order:process:far").unwrap();
    let (mut acquires, mut releases, mut sent) = (Vec::new(), Vec::new(), [0; 2]);
    for _ in 0..TIMES {
        let (asked, started) = (proxy.asked(), Instant::now());
        let guard = lock.acquire(PATIENCE).await.unwrap();
        acquires.push(started.elapsed().as_secs_f64() * 1e3);
        sent[0] += proxy.asked() - asked;
        let (asked, started) = (proxy.asked(), Instant::now());
        guard.release().await.unwrap();
        releases.push(started.elapsed().as_secs_f64() * 1e3);
        sent[1] += proxy.asked() - asked;
    }
    for (what, times, sent) in [
        ("an acquire", acquires, sent[0]),
        ("a release", releases, sent[1]),
    ] {
        let trips = sent as f64 / TIMES as f64;
        row(
            &format!("0.5 ms away, {what}, ms"),
            format!("{:.1}", median(times)),
            "",
        );
        row("  sent for it, times", format!("{trips:.2}"), "");
    }
}

/// Prints how soon another process gets a lock that so many tasks of this process take all the time.
pub async fn measure_starvation(
    tasks: usize,
    times: usize,
    locks: &LockProvider,
    child: &mut Child,
) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let (cycle, stop) = (cycle(locks.clone(), 0), Arc::clone(&stop));
        running.spawn(async move {
            let mut cycles = 0;
            while !stop.load(Ordering::Relaxed) {
                cycle().await;
                cycles += 1;
            }
            cycles
        });
    }
    let (started, mut waits) = (Instant::now(), Vec::new());
    for _ in 0..times {
        sleep(SETTLED).await;
        let asked = boottime();
        child.tell(&format!("when {} 60000", name(0))).await;
        let answer = child.answer().await;
        let granted: u64 = answer.strip_prefix("granted ").unwrap().parse().unwrap();
        waits.push((granted - asked) as f64 / 1e6);
        child.release().await;
    }
    stop.store(true, Ordering::Relaxed);
    let cycles: u32 = running.join_all().await.into_iter().sum();
    let rate = f64::from(cycles) / started.elapsed().as_secs_f64();
    row(
        &format!("{tasks} tasks, another process gets it too"),
        format!("{rate:.0}"),
        "",
    );
    let most = waits.iter().copied().fold(0.0, f64::max);
    row("  it waits p50, ms", format!("{:.1}", median(waits)), "");
    row("  it waits at most, ms", format!("{most:.1}"), "");
}

/// Nanoseconds from the call of the release here to the grant in the process.
pub async fn hand_overs(times: usize, locks: &LockProvider, child: &mut Child) -> Vec<u64> {
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

/// The name that a task has for itself.
pub fn name(number: usize) -> LockName {
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
