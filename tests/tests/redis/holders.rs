//! Holders that are frozen, and holders behind a dead network.

use std::sync::Arc;
use std::time::Duration;

use lock_tests::child::Child;
use lock_tests::servers::{Lan, RedisServer};
use lock_tests::{Lateness, RedisStore};
use tokio::time::{sleep, timeout};

use crate::support::{BOUND, LEASE, MARGIN, NAME, PATIENCE, client, take, token, try_once};

#[tokio::test]
async fn a_frozen_holder_is_succeeded_in_time_and_knows_at_its_first_look() {
    let server = RedisServer::start().await;
    let address = RedisStore::address_of(&server.url(), Duration::ZERO);
    let mut holder = Child::start(env!("CARGO_BIN_EXE_locker"), &address).await;
    let other = client(&server.url()).await;
    holder.hold(&NAME).await;
    let old = holder.ask("token").await;
    let old: u64 = old.strip_prefix("token ").unwrap().parse().unwrap();
    holder.freeze().await;
    let late = Lateness::of(LEASE);
    let guard = take(&other).await;
    late.at_most(BOUND).await;
    assert!(token(&guard).await > old);
    holder.thaw().await;
    assert_eq!(holder.ask("valid").await, "valid false");
    assert_eq!(holder.ask("token").await, "error lost");
    assert_eq!(holder.ask("release").await, "error lost");
    sleep(LEASE).await;
    assert!(
        guard.is_valid(),
        "what the old holder does is nothing to the new"
    );
    guard.release().await.unwrap();
    holder.hold(&NAME).await;
    holder.release().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_behind_a_dead_network_knows_before_another_is_granted() {
    let lan = Lan::new().await;
    let server = RedisServer::options().inside(lan.right()).start().await;
    let (near, far) = (server.url(), server.url());
    let holder = lan.left().run(async move { client(&far).await }).await;
    let other = lan.right().run(async move { client(&near).await }).await;
    let guard = Arc::new(take(&holder).await);
    let old = token(&guard).await;
    let waiting = tokio::spawn({
        let (other, held) = (other.clone(), Arc::clone(&guard));
        async move {
            let next = take(&other).await;
            assert!(!held.is_valid(), "held by two");
            next
        }
    });
    // Renewed.
    sleep(LEASE).await;
    let (at_the_deadline, granted_in_time) = (Lateness::of(LEASE - MARGIN), Lateness::of(LEASE));
    lan.down().await;
    guard.lost().await;
    assert!(!guard.is_valid());
    at_the_deadline.at_most(BOUND).await;
    let next = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    granted_in_time.at_most(BOUND).await;
    assert!(token(&next).await > old);
    let guard = Arc::into_inner(guard).unwrap();
    assert!(guard.release().await.unwrap_err().is_lost());
    // Cut off, it learns that there is no server, and not that the lock is held.
    let error = try_once(&holder).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    lan.up().await;
    next.release().await.unwrap();
    take(&holder).await.release().await.unwrap();
}
