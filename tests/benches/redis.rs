//! Redis locks beside those of rslock, on one private server, printed as a table:
//! `cargo bench -p lock-tests --bench redis`.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails ends")]

use std::time::Duration;

use futures_util::future::BoxFuture;
use lock_core::LockProvider;
use lock_core::redis::RedisBackend;
use lock_tests::child::Child;
use lock_tests::comparison::{
    Names, Observed, compare_cycles, compare_hand_overs, hand_overs, measure_at_a_distance,
    measure_many, measure_starvation, peer_hand_overs, row, title,
};
use lock_tests::servers::{Proxy, RedisServer, Server};
use rslock::{LockGuard, LockManager};
use rustix::process::Pid;
use tokio::time::sleep;

const LOCKER: &str = env!("CARGO_BIN_EXE_locker");

/// Hand-overs of ours, and of a peer that takes a tenth of a second for each.
const HAND_OVERS: (usize, usize) = (500, 100);

/// How many tasks of this process want one name.
const CONTENDERS: usize = 100;

/// The default, for either.
const LEASE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() {
    // `cargo test --benches` only looks whether it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let server = RedisServer::start().await;
    let observation = Observation(&server);
    let locks = client(&server).await;
    let connections = observation.connections().await;
    // One server, as its documentation begins, and its default of retries.
    let peer = LockManager::new(vec![server.url()]);

    title("rslock");
    for (tasks, ours, theirs) in [
        (1, 5_000, 5_000),
        (64, 100_000, 60_000),
        (1_024, 200_000, 100_000),
    ] {
        let peer = |task| peer_cycle(peer.clone(), task);
        let tasks = (tasks, Names::Own);
        compare_cycles(&observation, tasks, (&locks, ours), (peer, theirs)).await;
    }
    let of_peer = |task| peer_cycle(peer.clone(), task);
    let tasks = (CONTENDERS, Names::One);
    compare_cycles(&observation, tasks, (&locks, 10_000), (of_peer, 500)).await;
    let theirs = observation.connections().await - connections;

    let address = format!("redis:{}:0:{}", LEASE.as_millis(), server.url());
    let mut child = Child::start(LOCKER, &address).await;
    let ours = hand_overs(HAND_OVERS.0, &locks, &mut child).await;
    measure_starvation(CONTENDERS, 50, &locks, &mut child).await;
    let proxy = Proxy::to(server.address()).await;
    let far = RedisBackend::builder(&proxy.url(&server.url())).lease(LEASE);
    let far = far.quarantine(Duration::ZERO).connect().await.unwrap();
    measure_at_a_distance(&proxy, &LockProvider::new(far)).await;
    drop(proxy);
    row(
        "connections",
        observation.connections().await - theirs,
        theirs,
    );
    let acquire = async || peer.acquire("order:process:0", LEASE).await.unwrap();
    let release = async |guard: LockGuard| guard.release().await;
    compare_hand_overs(ours, peer_hand_overs(HAND_OVERS.1, acquire, release).await);

    let other = client(&server).await;
    measure_many(&observation, &locks, &other).await;
}

/// With the defaults, but for the quarantine of a server that has just been started.
async fn client(server: &RedisServer) -> LockProvider {
    let backend = RedisBackend::builder(&server.url())
        .lease(LEASE)
        .quarantine(Duration::ZERO);
    LockProvider::new(backend.connect().await.unwrap())
}

fn peer_cycle(peer: LockManager, task: usize) -> impl Fn() -> BoxFuture<'static, ()> {
    let name = format!("peer:{task}");
    move || {
        let (peer, name) = (peer.clone(), name.clone());
        Box::pin(async move {
            let guard = peer.acquire(name.as_str(), LEASE).await.unwrap();
            guard.release().await;
        })
    }
}

struct Observation<'a>(&'a RedisServer);

impl Observed for Observation<'_> {
    fn processes(&self) -> Vec<Pid> {
        self.0.processes()
    }

    async fn connections(&self) -> usize {
        let list: String = self.0.ask(&["CLIENT", "LIST"]).await.unwrap();
        // Over TCP: the asking one is not.
        let theirs = list.lines().filter(|line| !line.contains("/socket:0"));
        theirs.count()
    }

    /// Calls of scripts, which is all there is but for subscriptions.
    async fn statements(&self, during: Duration) -> usize {
        let before = self.calls().await;
        sleep(during).await;
        self.calls().await - before
    }
}

impl Observation<'_> {
    async fn calls(&self) -> usize {
        let stats: String = self.0.ask(&["INFO", "commandstats"]).await.unwrap();
        let calls = stats.lines().find_map(|line| {
            let calls = line.strip_prefix("cmdstat_evalsha:calls=")?;
            calls.split(',').next()?.parse().ok()
        });
        calls.unwrap_or(0)
    }
}
