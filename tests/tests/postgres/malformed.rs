//! A server, or what stands before it, that does not keep to the protocol.

use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_core::{LockProvider, LossReason};
use lock_tests::eventually;
use lock_tests::servers::{Direction, PostgresServer, Proxy};
use tokio::time::{Instant, timeout};

use crate::support::{LEASE, PATIENCE, ZERO, acquire, client, numbered, order, take};

/// A notification without a sender, messages that are shorter than their header, an answer that ends
/// a statement which no client has sent.
const MALFORMED: [&[u8]; 4] = [b"A\0\0\0\x04", b"A\0\0\0\0", b"Z\0\0\0\x05I", b"\0\0\0\0\0"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_message_costs_the_session_and_there_is_another() {
    let server = PostgresServer::start().await;
    let network = Proxy::to(server.address()).await;
    let client = client(&network.url(&server.url())).await;
    for message in MALFORMED {
        let guard = acquire(&client, order(), PATIENCE).await;
        network.inject(message);
        assert_eq!(guard.lost().await, LossReason::Disconnected, "{message:?}");
        drop(acquire(&client, numbered(1), PATIENCE).await);
        eventually("it is well", || async { client.health().await.is_up() }).await;
    }
}

/// Also in the middle of its first steps, and of those of each that comes after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_bytes_were_wrong_for_a_while_it_serves_again() {
    let server = PostgresServer::start().await;
    let network = Proxy::to(server.address()).await;
    let url = network.url(&server.url());
    let held = client(&url).await;
    let guard = take(&held, order()).await;
    network.garble(Direction::ToClient);
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        // Each answers something, in time, and what it answers is no lock that another has.
        let lock = held.lock(numbered(fastrand::usize(..4))).unwrap();
        let tried = timeout(PATIENCE, lock.try_acquire(ZERO)).await;
        drop(tried.expect("an answer"));
        let fresh = PostgresBackend::builder(&*url).lease(LEASE).connect();
        let fresh = timeout(PATIENCE, fresh).await.expect("an answer");
        drop(fresh.map(LockProvider::new));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Nothing of it went to the process, whose session is gone by now, at the latest with this.
    network.heal().await;
    network.reset();
    guard.lost().await;
    drop(acquire(&held, order(), PATIENCE).await);
    eventually("it is well", || async { held.health().await.is_up() }).await;
    drop(take(&client(&url).await, numbered(5)).await);
}
