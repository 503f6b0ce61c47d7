//! Places of writers that wait: none outlasts its writer.

use std::time::Duration;

use futures_util::future::BoxFuture;
use lock_core::backend::{Attempt, Backend, Grant};
use lock_core::redis::RedisBackend;
use lock_tests::eventually;
use lock_tests::servers::{Direction, Proxy, RedisServer, Server};
use tokio::time::timeout;

use super::{
    FOR_EVER, attempt, backend, is_refused, key, members, places, reads, set, take, wait_for,
    writes,
};
use crate::support::{LEASE, PATIENCE};

/// So that places are asked for with the tries of a test alone, and none is tried for the waiters.
async fn is_subscribed(server: &RedisServer) {
    eventually("it listens", async || {
        let listens: (String, u32) = server.ask(&["PUBSUB", "NUMSUB", &key()]).await.unwrap();
        listens.1 == 1
    })
    .await;
}

async fn has_places(server: &RedisServer, number: usize) {
    eventually("there are as many places", async || {
        places(server).await == number
    })
    .await;
}

/// A writer that waits, and has the one place before readers, until what this gives is dropped.
async fn takes_a_place(server: &RedisServer, backend: &RedisBackend) -> BoxFuture<'static, ()> {
    let request = writes();
    let waits = Box::pin(backend.changed(&request));
    is_subscribed(server).await;
    assert!(is_refused(backend, &request).await);
    has_places(server, 1).await;
    waits
}

/// Readers are granted the lock beside those that hold it.
async fn readers_come(backend: &RedisBackend) {
    let next = timeout(PATIENCE, wait_for(backend, &reads())).await;
    drop(next.expect("no writer waits"));
}

/// What the script says of a writer that has a place.
fn is_of_a_place(reply: &[u8]) -> bool {
    reply.windows(6).any(|said| said == b"waits ")
}

#[tokio::test]
async fn a_place_whose_answer_was_lost_is_given_back() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let (one, two) = (
        backend(&server.url(), FOR_EVER).await,
        backend(&proxy.url(&server.url()), FOR_EVER).await,
    );
    let held = take(&one, &reads()).await;
    for _ in 0..5 {
        let request = writes();
        let waits = two.changed(&request);
        is_subscribed(&server).await;
        proxy.drop_next_reply_that(is_of_a_place);
        // The lost one is not given back before it can be taken no more: the next has its own.
        assert!(is_refused(&two, &request).await);
        assert!(is_refused(&one, &reads()).await);
        drop(waits);
        has_places(&server, 0).await;
        readers_come(&one).await;
    }
    assert!(held.lease().is_valid());
}

#[tokio::test]
async fn a_place_that_is_lost_with_its_writer_is_given_back() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let (one, two) = (
        backend(&server.url(), FOR_EVER).await,
        backend(&proxy.url(&server.url()), FOR_EVER).await,
    );
    let _held = take(&one, &reads()).await;
    let request = writes();
    let waits = two.changed(&request);
    is_subscribed(&server).await;
    proxy.swallow(Direction::ToClient);
    let asking = tokio::spawn(async move {
        drop(two.try_acquire(&request).await);
        two
    });
    has_places(&server, 1).await;
    drop(waits);
    proxy.heal().await;
    let two = asking.await.unwrap();
    has_places(&server, 0).await;
    readers_come(&one).await;
    drop(two);
}

#[tokio::test]
async fn a_place_that_was_taken_when_the_clock_jumped_is_given_back() {
    let server = RedisServer::options().own_clock().start().await;
    // Longer than the test waits, and so short that clocks differ by less than a second.
    let lease = Duration::from_secs(60);
    let (one, two) = (
        backend(&server.url(), lease).await,
        backend(&server.url(), lease).await,
    );
    let _held = take(&one, &reads()).await;
    let request = writes();
    let waits = two.changed(&request);
    is_subscribed(&server).await;
    // So little that the try is not too late.
    server.put_clock(1);
    let refused = two.try_acquire(&request).await.unwrap();
    assert!(matches!(refused, Attempt::Held { .. }));
    has_places(&server, 1).await;
    drop(waits);
    has_places(&server, 0).await;
}

#[tokio::test]
async fn a_writer_that_has_left_while_its_server_was_away_has_no_place_when_it_is_back() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let (one, two) = (
        backend(&server.url(), FOR_EVER).await,
        backend(&proxy.url(&server.url()), FOR_EVER).await,
    );
    let _held = take(&one, &reads()).await;
    for is_cut in [false, true] {
        let waits = takes_a_place(&server, &two).await;
        if is_cut {
            proxy.refuse().await;
            proxy.reset();
        } else {
            proxy.hold(Direction::ToServer);
        }
        drop(waits);
        // Longer than it takes to leave.
        tokio::time::sleep(LEASE / 4).await;
        assert_eq!(places(&server).await, 1);
        proxy.heal().await;
        has_places(&server, 0).await;
        readers_come(&one).await;
    }
}

#[tokio::test]
async fn a_writer_leaves_its_place_in_a_quarantine() {
    // In no quarantine yet.
    let server = RedisServer::up_for_a_day().await;
    let careful = RedisBackend::builder(&server.url()).lease(FOR_EVER);
    let two = careful.quarantine(FOR_EVER).connect();
    let one = backend(&server.url(), FOR_EVER).await;
    let _held = take(&one, &reads()).await;
    let two = two.await.unwrap();
    let waits = takes_a_place(&server, &two).await;
    let () = server.ask(&["SAVE"]).await.unwrap();
    server.restart().await;
    assert_eq!(places(&server).await, 1, "as it was saved");
    eventually("it is in quarantine", async || {
        matches!(attempt_any(&two).await, Some(false))
    })
    .await;
    drop(waits);
    has_places(&server, 0).await;
}

/// Whether a lock that no client holds is granted, if the server answers.
async fn attempt_any(backend: &RedisBackend) -> Option<bool> {
    let free = lock_core::backend::LockRequest::new("order:process:7".parse().unwrap());
    let answer = backend.try_acquire(&free).await.ok()?;
    Some(matches!(answer, Attempt::Granted(_)))
}

#[tokio::test]
async fn a_backend_that_ends_leaves_the_places_of_its_writers() {
    let server = RedisServer::start().await;
    let one = backend(&server.url(), FOR_EVER).await;
    let _held = take(&one, &reads()).await;
    for closes in [true, false] {
        let two = backend(&server.url(), FOR_EVER).await;
        let waits = takes_a_place(&server, &two).await;
        if closes {
            two.close().await;
            assert_eq!(places(&server).await, 0);
        }
        drop((waits, two));
        has_places(&server, 0).await;
        readers_come(&one).await;
    }
}

/// As after a fail-over to a server whose clock is behind.
#[tokio::test]
async fn the_place_of_a_writer_that_is_gone_lasts_no_longer_where_the_clock_was_put_back() {
    let server = RedisServer::options().own_clock().start().await;
    let proxy = Proxy::to(server.address()).await;
    let (one, two) = (
        backend(&server.url(), LEASE).await,
        backend(&proxy.url(&server.url()), LEASE).await,
    );
    let held = take(&one, &reads()).await;
    let waits = takes_a_place(&server, &two).await;
    proxy.hold(Direction::ToServer);
    server.put_clock(-3_600);
    assert!(is_refused(&one, &reads()).await, "it may live");
    readers_come(&one).await;
    assert!(held.lease().is_valid());
    drop(waits);
}

#[tokio::test]
async fn a_place_that_no_script_wrote_keeps_readers_out_for_no_longer_than_a_lease() {
    let server = RedisServer::start().await;
    let one = backend(&server.url(), LEASE).await;
    let _held = take(&one, &reads()).await;
    let set = set();
    for end in ["-9e15", "-inf", "-8e15"] {
        let place = format!("?{}", end.trim_start_matches('-'));
        let () = server.ask(&["ZADD", &set, end, &place]).await.unwrap();
    }
    assert!(attempt(&one, &reads()).await.is_none());
    readers_come(&one).await;
    eventually("the reader that came has removed them", async || {
        members(&server).await.len() == 1
    })
    .await;
}
