//! A server far away: each exchange with it takes a third of a second.

use std::time::Duration;

use lock_core::LockProvider;
use lock_core::redis::RedisBackend;
use lock_tests::servers::{Proxy, RedisServer};
use tokio::time::sleep;

use crate::support::{self, NAME, PATIENCE, is_held, take, token};

/// Half of a round trip.
const ONE_WAY: Duration = Duration::from_millis(150);

/// Longer than that of the other tests, of which round trips would leave a busy machine little.
const LEASE: Duration = support::LEASE.saturating_mul(2);

async fn client(url: &str) -> LockProvider {
    let backend = RedisBackend::builder(url)
        .lease(LEASE)
        .quarantine(Duration::ZERO);
    LockProvider::new(backend.connect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_work_over_a_round_trip_of_300_ms() {
    let server = RedisServer::start().await;
    let link = Proxy::to(server.address()).await;
    link.delay(ONE_WAY);
    let url = link.url(&server.url());
    let (holder, waiter) = tokio::join!(client(&url), client(&url));
    let guard = take(&holder).await;
    // Longer than two heartbeats, and than the lease.
    sleep(LEASE * 3 / 2).await;
    assert!(guard.is_valid());
    assert!(is_held(&waiter).await);
    let lock = waiter.lock(NAME).unwrap();
    let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    sleep(LEASE).await;
    guard.release().await.unwrap();
    let guard = waiting.await.unwrap().unwrap();
    assert!(token(&guard).await > 0);
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_comes_back_over_a_round_trip_of_300_ms() {
    let server = RedisServer::start().await;
    let link = Proxy::to(server.address()).await;
    link.delay(ONE_WAY);
    let client = client(&link.url(&server.url())).await;
    take(&client).await.release().await.unwrap();
    link.reset();
    take(&client).await.release().await.unwrap();
}
