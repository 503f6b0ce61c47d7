//! Readers and writers that are gone, and servers that forget.

use std::sync::Arc;

use lock_core::LossReason;
use lock_core::backend::Grant;
use lock_core::redis::RedisBackend;
use lock_tests::eventually;
use lock_tests::servers::{Direction, Proxy, RedisServer, Server};
use tokio::time::{sleep, timeout};

use super::{
    FOR_EVER, attempt, backend, is_refused, key, lost, members, places, reads, set, take, wait_for,
    writes,
};
use crate::support::{LEASE, PATIENCE};

/// One whose process is cut off for good: nothing of it reaches the server any more.
async fn behind(proxy: &Proxy, server: &RedisServer) -> RedisBackend {
    backend(&proxy.url(&server.url()), LEASE).await
}

fn cut_off(proxy: &Proxy) {
    proxy.hold(Direction::ToServer);
}

#[tokio::test]
async fn a_reader_that_is_gone_ends_with_its_own_lease_while_others_renew() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let (gone, lives) = (
        behind(&proxy, &server).await,
        backend(&server.url(), LEASE).await,
    );
    let ended = take(&gone, &reads()).await;
    let held = take(&lives, &reads()).await;
    cut_off(&proxy);
    // Before the server can give its share away.
    assert_eq!(lost(&ended).await, LossReason::Expired);
    sleep(LEASE).await;
    assert!(held.lease().is_valid() && is_refused(&lives, &writes()).await);
    // The share that has ended is nothing to a writer.
    held.release().await.unwrap();
    let writer = timeout(PATIENCE, wait_for(&lives, &writes()))
        .await
        .unwrap();
    assert!(writer.lease().is_valid());
}

#[tokio::test]
async fn a_writer_waits_a_lease_for_readers_that_are_all_gone() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let (gone, lives) = (
        behind(&proxy, &server).await,
        backend(&server.url(), LEASE).await,
    );
    let ended = [take(&gone, &reads()).await, take(&gone, &reads()).await];
    cut_off(&proxy);
    let writer = wait_for(&lives, &writes()).await;
    for grant in &ended {
        assert!(!grant.lease().is_valid(), "beside a writer");
    }
    assert!(writer.lease().is_valid());
    // What they send late changes nothing.
    proxy.heal().await;
    drop(ended);
    sleep(LEASE).await;
    assert!(writer.lease().is_valid() && is_refused(&lives, &reads()).await);
}

#[tokio::test]
async fn the_place_of_a_writer_that_is_gone_ends_with_a_lease() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let (gone, lives) = (
        behind(&proxy, &server).await,
        backend(&server.url(), LEASE).await,
    );
    let gone = Arc::new(gone);
    let held = take(&lives, &reads()).await;
    let writer = tokio::spawn({
        let gone = Arc::clone(&gone);
        async move { wait_for(&gone, &writes()).await }
    });
    eventually("it has its place", async || places(&server).await == 1).await;
    assert!(is_refused(&lives, &reads()).await);
    cut_off(&proxy);
    let next = timeout(PATIENCE, wait_for(&lives, &reads())).await.unwrap();
    assert!(held.lease().is_valid() && next.lease().is_valid());
    writer.abort();
}

#[tokio::test]
async fn a_share_that_was_removed_is_not_renewed_and_its_release_changes_nothing() {
    let server = RedisServer::start().await;
    let (one, two) = (
        backend(&server.url(), LEASE).await,
        backend(&server.url(), LEASE).await,
    );
    let (removed, stays) = (take(&one, &reads()).await, take(&two, &reads()).await);
    let set = set();
    let first = &members(&server).await[0];
    let () = server.ask(&["ZREM", &set, first]).await.unwrap();
    assert_eq!(lost(&removed).await, LossReason::Revoked);
    assert_eq!(members(&server).await.len(), 1);
    assert!(removed.release().await.unwrap_err().is_lost());
    assert!(is_refused(&one, &writes()).await && stays.lease().is_valid());
    stays.release().await.unwrap();
}

#[tokio::test]
async fn a_reader_of_a_lock_that_was_deleted_is_nothing_to_the_next_readers() {
    let server = RedisServer::start().await;
    let (one, two) = (
        backend(&server.url(), FOR_EVER).await,
        backend(&server.url(), FOR_EVER).await,
    );
    let stale = take(&one, &reads()).await;
    // Its set stays, as where it is evicted alone.
    let () = server.ask(&["DEL", &key()]).await.unwrap();
    let next = take(&two, &reads()).await;
    assert_eq!(members(&server).await.len(), 1, "of the lock that there is");
    assert!(stale.release().await.is_err());
    assert!(is_refused(&two, &writes()).await && next.lease().is_valid());
    next.release().await.unwrap();
    let writer = take(&two, &writes()).await;
    // A share of a lock that a writer holds by now.
    let set = set();
    let share = format!("{:032x}&web-1", 7);
    let () = server.ask(&["ZADD", &set, "9e15", &share]).await.unwrap();
    assert!(writer.lease().is_valid() && is_refused(&one, &reads()).await);
    writer.release().await.unwrap();
    drop(take(&one, &writes()).await);
}

#[tokio::test]
async fn the_readers_of_a_set_that_is_missing_keep_writers_out_until_the_lock_ends() {
    let server = RedisServer::start().await;
    let one = backend(&server.url(), FOR_EVER).await;
    let held = take(&one, &reads()).await;
    let set = set();
    let () = server.ask(&["DEL", &set]).await.unwrap();
    assert!(is_refused(&one, &writes()).await && is_refused(&one, &reads()).await);
    drop(held);
}

#[tokio::test]
async fn no_share_and_no_lock_is_granted_for_a_lease_after_a_restart() {
    for saved in [false, true] {
        let server = RedisServer::start().await;
        let careful = async || {
            let backend = RedisBackend::builder(&server.url()).lease(2 * LEASE);
            backend.connect().await.unwrap()
        };
        let (one, two) = (careful().await, careful().await);
        let kept = wait_for(&one, &reads()).await;
        if saved {
            let () = server.ask(&["SAVE"]).await.unwrap();
        }
        // The server that starts again knows nothing of this one.
        let forgotten = take(&two, &reads()).await;
        server.restart().await;
        let reader = wait_for(&two, &reads()).await;
        assert!(
            !forgotten.lease().is_valid(),
            "forgotten, and beside others"
        );
        assert_eq!(lost(&forgotten).await, LossReason::Revoked);
        // What the server still knows goes on.
        assert_eq!(kept.lease().is_valid(), saved);
        assert!(is_refused(&one, &writes()).await);
        reader.release().await.unwrap();
        let is_free = attempt(&two, &writes()).await.is_some();
        assert_ne!(is_free, saved);
    }
}
