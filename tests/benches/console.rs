//! How long the operators' page takes to answer while 10,000 locks are held, for each store: `cargo bench -p
//! lock-tests --bench console`.
//!
//! Requests are calls of the router, without sockets, so far apart that each asks a store that answers within a third of
//! that: the page does once a second at most.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails ends")]
#![allow(clippy::print_stdout, reason = "the figures are what it is for")]

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use lock_core::file::FileBackend;
use lock_core::memory::MemoryBackend;
use lock_core::postgres::{LeaseTable, PostgresBackend};
use lock_core::redis::RedisBackend;
use lock_core::{LockName, LockProvider};
use lock_tests::servers::{PostgresServer, RedisServer};
use lock_tower::console;
use tokio::time::sleep;
use tower::ServiceExt;

/// Locks that are held meanwhile.
const HELD: usize = 10_000;

/// Calls of each address.
const CALLS: usize = 15;

/// From one to the next.
const APART: Duration = Duration::from_millis(1_100);

/// Asks for the page, and reads it to its end. Gives how long that takes, and the bytes of the answer.
async fn ask(app: &Router, path: &str) -> (Duration, usize) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let begun = Instant::now();
    let response = app.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (begun.elapsed(), body.len())
}

async fn look(store: &str, locks: LockProvider) {
    let names = (0..HELD).map(|id| LockName::new("order", "process", id).unwrap());
    let guards = locks.claim(names, HELD).await.unwrap();
    assert_eq!(guards.len(), HELD);
    let app: Router = console::router(locks.clone());
    for path in ["/locks", "/locks.json"] {
        let mut times = Vec::new();
        let mut bytes = 0;
        for _ in 0..CALLS {
            sleep(APART).await;
            let (time, length) = ask(&app, path).await;
            times.push(time);
            bytes = length;
        }
        times.sort_unstable();
        println!(
            "{store:>14}  {path:<11}  median {:>6.1} ms  longest {:>6.1} ms  {bytes:>7} bytes",
            times[CALLS / 2].as_secs_f64() * 1e3,
            times[CALLS - 1].as_secs_f64() * 1e3,
        );
    }
    drop(guards);
    locks.shutdown(Duration::from_secs(30)).await;
}

#[tokio::main]
async fn main() {
    println!("{HELD} locks are held, {CALLS} requests one after the other");
    look("memory", LockProvider::new(MemoryBackend::new())).await;
    let directory = tempfile::tempdir().unwrap();
    let files = FileBackend::open(directory.path().join("locks")).unwrap();
    look("files", LockProvider::new(files)).await;
    let server = RedisServer::start().await;
    let redis = RedisBackend::builder(&server.url()).quarantine(Duration::ZERO);
    look("redis", LockProvider::new(redis.connect().await.unwrap())).await;
    // Room for that many in its table of locks.
    let server = PostgresServer::with(&[("max_locks_per_transaction", "512")]).await;
    let session = PostgresBackend::connect(&server.url()).await.unwrap();
    look("postgres", LockProvider::new(session)).await;
    let table = LeaseTable::connect(&server.url()).await.unwrap();
    look("postgres-table", LockProvider::new(table)).await;
}
