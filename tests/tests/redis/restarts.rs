//! Servers that come back without what they knew.

use std::time::{Duration, Instant};

use lock_core::redis::RedisBackend;
use lock_core::{LockProvider, LossReason};
use lock_tests::servers::{RedisServer, Server};
use lock_tests::{Lateness, Log, crowd_outlasts};
use tokio::time::sleep;

use crate::support::{BOUND, LEASE, NAME, careful_client, client, is_held, take, token, try_once};

/// Of other processes of the fleet, as while it is changed.
const LONGER: Duration = LEASE.saturating_mul(2);

/// A client as production has it, with that lease.
async fn longer_client(url: &str) -> LockProvider {
    let backend = RedisBackend::builder(url).lease(LONGER);
    LockProvider::new(backend.connect().await.unwrap())
}

/// What has been granted now was not before a lease was over.
#[track_caller]
fn assert_a_lease_since(event: Instant) {
    assert_over_since(event, LEASE);
}

#[track_caller]
fn assert_over_since(event: Instant, lease: Duration) {
    assert!(event.elapsed() + BOUND > lease, "{:?}", event.elapsed());
}

#[tokio::test]
async fn nobody_is_granted_a_lock_for_one_lease_after_a_restart_without_data() {
    let server = RedisServer::start().await;
    let (here, there) = (
        careful_client(&server.url()).await,
        careful_client(&server.url()).await,
    );
    let guard = take(&here).await;
    let before = token(&guard).await;
    let before_its_start = Instant::now();
    server.restart().await;
    let late = Lateness::of(LEASE);
    let new = careful_client(&server.url()).await;
    assert!(is_held(&new).await, "a client that is new keeps to it");
    // By the next renewal, and not by the end of the lease.
    assert_eq!(guard.lost().await, LossReason::Revoked);
    let next = take(&there).await;
    late.at_most(2 * BOUND).await;
    // The server tells its start in whole seconds.
    assert_a_lease_since(before_its_start);
    assert!(token(&next).await > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_waiters_outlast_a_restart_of_the_server() {
    let server = RedisServer::start().await;
    let (holder, waiter) = (
        careful_client(&server.url()).await,
        careful_client(&server.url()).await,
    );
    let name = NAME.parse().unwrap();
    let restart = Box::pin(async {
        server.kill().await;
        // They are notified, and ask again.
        sleep(LEASE).await;
        server.restart().await;
    });
    crowd_outlasts(&holder, &waiter, &name, restart).await;
}

#[tokio::test]
async fn nobody_is_granted_a_lock_for_one_lease_after_a_restart_from_an_old_snapshot() {
    let server = RedisServer::start().await;
    let (here, there) = (
        careful_client(&server.url()).await,
        careful_client(&server.url()).await,
    );
    take(&here).await.release().await.unwrap();
    let () = server.ask(&["SAVE"]).await.unwrap();
    let guard = take(&here).await;
    let before = token(&guard).await;
    let before_its_start = Instant::now();
    server.restart().await;
    assert!(is_held(&there).await);
    assert_eq!(guard.lost().await, LossReason::Revoked);
    let next = take(&there).await;
    assert_a_lease_since(before_its_start);
    assert!(token(&next).await > before);
}

#[tokio::test]
async fn without_a_quarantine_a_restarted_server_grants_at_once() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let guard = take(&here).await;
    server.restart().await;
    let late = Lateness::of(Duration::ZERO);
    take(&client(&server.url()).await)
        .await
        .release()
        .await
        .unwrap();
    late.at_most(LEASE / 2).await;
    assert_eq!(guard.lost().await, LossReason::Revoked);
}

/// Whether the quarantine is on already, or what it is for is noted alone.
#[tokio::test]
async fn a_client_without_a_quarantine_ends_none_of_other_clients() {
    for is_noted in [false, true] {
        let server = RedisServer::start().await;
        let here = careful_client(&server.url()).await;
        take(&here).await.release().await.unwrap();
        let hasty = client(&server.url()).await;
        take(&hasty).await.release().await.unwrap();
        let () = server.ask(&["SAVE"]).await.unwrap();
        let guard = take(&here).await;
        let before_its_start = Instant::now();
        server.restart().await;
        if is_noted {
            let first = careful_client(&server.url()).await;
            assert!(is_held(&first).await);
        }
        let new = client(&server.url()).await;
        assert!(is_held(&new).await, "noted: {is_noted}");
        let next = take(&new).await;
        assert!(!guard.is_valid(), "held by two");
        assert_a_lease_since(before_its_start);
        next.release().await.unwrap();
    }
}

/// The first that asks has a shorter lease, or no quarantine, and knows of no other.
#[tokio::test]
async fn a_client_with_a_longer_lease_lengthens_a_quarantine_for_all() {
    let log = Log::of_process();
    for quarantine in [LEASE, Duration::ZERO] {
        let server = RedisServer::start().await;
        let here = longer_client(&server.url()).await;
        let guard = take(&here).await;
        let before_its_start = Instant::now();
        server.restart().await;
        let shorter = RedisBackend::builder(&server.url())
            .lease(LEASE)
            .quarantine(quarantine);
        let shorter = LockProvider::new(shorter.connect().await.unwrap());
        let _longer = longer_client(&server.url()).await;
        assert!(is_held(&shorter).await);
        let next = take(&shorter).await;
        assert!(!guard.is_valid(), "held by two");
        assert_over_since(before_its_start, LONGER);
        next.release().await.unwrap();
    }
    assert!(log.count("the quarantine is longer than that of this process") > 0);
}

/// Which was promoted long after its start, and whose shorter quarantine is over.
#[tokio::test]
async fn a_client_with_a_longer_lease_lengthens_the_quarantine_of_a_promoted_replica() {
    let server = RedisServer::options().own_clock().start().await;
    let replica = server.replica().await;
    replica.promote().await;
    let promoted = Instant::now();
    replica.put_clock(60);
    let shorter = careful_client(&replica.url()).await;
    take(&shorter).await.release().await.unwrap();
    let longer = longer_client(&replica.url()).await;
    assert!(is_held(&longer).await);
    take(&longer).await.release().await.unwrap();
    assert_over_since(promoted, LONGER);
}

#[tokio::test]
async fn a_lease_that_is_raised_costs_no_pause_where_the_server_has_been_up_for_longer() {
    let server = RedisServer::up_for_a_day().await;
    let shorter = careful_client(&server.url()).await;
    take(&shorter).await.release().await.unwrap();
    let longer = longer_client(&server.url()).await;
    let guard = try_once(&longer).await.unwrap().expect("it is granted");
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_promoted_replica_grants_after_one_lease_with_newer_tokens() {
    let server = RedisServer::start().await;
    let replica = server.replica().await;
    let here = careful_client(&server.url()).await;
    let guard = take(&here).await;
    let before = token(&guard).await;
    server.kill().await;
    let killed = Instant::now();
    replica.promote().await;
    let there = careful_client(&replica.url()).await;
    let next = take(&there).await;
    assert_a_lease_since(killed);
    assert!(!guard.is_valid());
    assert!(token(&next).await > before);
}

/// The first grant of all is lost with its master, and with it that there was one. The replica is a master
/// for longer than a lease before it is asked.
#[tokio::test]
async fn a_replica_that_lacks_the_first_grant_grants_after_one_lease_with_newer_tokens() {
    let server = RedisServer::options().own_clock().start().await;
    let replica = server.replica().await;
    replica.put_clock(-60);
    replica.promote().await;
    sleep(LEASE + Duration::from_secs(2)).await;
    let here = careful_client(&server.url()).await;
    let guard = take(&here).await;
    let before = token(&guard).await;
    server.kill().await;
    let taken_over = Instant::now();
    let there = careful_client(&replica.url()).await;
    assert!(is_held(&there).await);
    let next = take(&there).await;
    assert!(!guard.is_valid());
    assert_a_lease_since(taken_over);
    assert!(token(&next).await > before);
}

/// It has a note of its own, of before another was the master, and lacks what that has granted.
#[tokio::test]
async fn a_master_that_was_a_replica_in_between_grants_after_one_lease_with_newer_tokens() {
    let server = RedisServer::start().await;
    let replica = server.replica().await;
    let first = careful_client(&server.url()).await;
    take(&first).await.release().await.unwrap();
    // It follows nothing.
    let () = server.ask(&["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
    replica.promote().await;
    let here = careful_client(&replica.url()).await;
    let guard = take(&here).await;
    let before = token(&guard).await;
    replica.kill().await;
    let promoted = Instant::now();
    let () = server.ask(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    let late = Lateness::of(LEASE);
    let there = careful_client(&server.url()).await;
    assert!(is_held(&there).await);
    let next = take(&there).await;
    assert!(!guard.is_valid());
    late.at_most(2 * BOUND).await;
    assert_a_lease_since(promoted);
    assert!(token(&next).await > before);
}

#[tokio::test]
async fn a_release_after_a_restart_without_data_says_that_the_lock_was_lost() {
    let server = RedisServer::start().await;
    let here = careful_client(&server.url()).await;
    let guard = take(&here).await;
    server.restart().await;
    // Sent to the server that is gone, and again to the one that knows of nothing.
    let error = guard.release().await.unwrap_err();
    assert!(error.is_lost(), "{error:?}");
    assert!(error.to_string().contains("lost its data"), "{error}");
}
