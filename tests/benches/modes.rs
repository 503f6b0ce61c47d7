//! What a permit and a reader cost beside an exclusive lock that no other caller wants, for each store, printed as
//! tables: `cargo bench -p lock-tests --bench modes`.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails ends")]

use std::time::Duration;

use lock_core::file::FileBackend;
use lock_core::memory::MemoryBackend;
use lock_core::postgres::{LeaseTable, PostgresBackend};
use lock_core::redis::RedisBackend;
use lock_core::{DistributedLock, LockProvider};
use lock_tests::comparison::{compare, cycle, cycle_of, name, row, title_of};
use lock_tests::servers::{PostgresServer, RedisServer, Server};
use rustix::process::Pid;

/// How many tasks work, each on a name of its own.
const TASKS: [usize; 2] = [1, 64];

type Mode = fn(DistributedLock) -> DistributedLock;

fn permit(lock: DistributedLock) -> DistributedLock {
    lock.permits(5)
}

/// Prints how many cycles of either mode a second are made. Each round has so many of one task, and up to eight
/// times as many of several.
async fn look(store: &str, processes: impl Fn() -> Vec<Pid>, locks: &LockProvider, cycles: usize) {
    row(store, "", "");
    for (what, mode) in [
        ("  a permit of five", permit as Mode),
        ("  a reader", DistributedLock::shared),
    ] {
        for tasks in TASKS {
            let cycles = cycles * tasks.min(8);
            let other = |task| cycle_of(mode(locks.lock(name(task)).unwrap()));
            let exclusive = |task| cycle(locks.clone(), task);
            let (other, exclusive) = ((other, cycles), (exclusive, cycles));
            compare((what, &processes), tasks, other, exclusive).await;
        }
    }
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` only looks whether it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    title_of("this mode", "exclusive");
    let memory = LockProvider::new(MemoryBackend::new());
    look("memory", Vec::new, &memory, 50_000).await;
    let directory = tempfile::tempdir().unwrap();
    let files = FileBackend::open(directory.path().join("locks")).unwrap();
    look("files", Vec::new, &LockProvider::new(files), 10_000).await;
    let server = RedisServer::start().await;
    let redis = RedisBackend::builder(&server.url()).quarantine(Duration::ZERO);
    let redis = LockProvider::new(redis.connect().await.unwrap());
    look("Redis", || server.processes(), &redis, 3_000).await;
    let server = PostgresServer::start().await;
    let session = PostgresBackend::connect(&server.url()).await.unwrap();
    let session = LockProvider::new(session);
    look(
        "PostgreSQL, a session",
        || server.processes(),
        &session,
        3_000,
    )
    .await;
    let table = LeaseTable::connect(&server.url()).await.unwrap();
    let table = LockProvider::new(table);
    look(
        "PostgreSQL, a lease table",
        || server.processes(),
        &table,
        500,
    )
    .await;
}
