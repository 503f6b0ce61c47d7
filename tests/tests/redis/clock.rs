//! The wall clock of the server is put.

use std::time::{Duration, Instant};

use lock_core::LossReason;
use lock_tests::servers::{Direction, Proxy, RedisServer, Server};
use lock_tests::{Lateness, eventually};
use tokio::time::sleep;

use crate::support::{BOUND, LEASE, NAME, PATIENCE, careful_client, client, is_held, take, token};

/// An hour, much longer than a lease.
const STEP: i64 = 3_600;

const YEAR: i64 = 365 * 24 * STEP;

async fn server() -> RedisServer {
    RedisServer::options().own_clock().start().await
}

/// That of the server, which no client has to agree with.
#[tokio::test]
async fn a_clock_that_is_years_away_is_as_good_as_any() {
    for years in [-20, 20] {
        let server = server().await;
        server.put_clock(years * YEAR);
        // It has never known another time.
        server.restart().await;
        let (here, there) = (
            careful_client(&server.url()).await,
            careful_client(&server.url()).await,
        );
        let guard = take(&here).await;
        let before = token(&guard).await;
        sleep(2 * LEASE).await;
        assert!(guard.is_valid() && is_held(&there).await, "{years} years");
        guard.release().await.unwrap();
        let next = take(&there).await;
        assert!(token(&next).await > before, "{years} years");
        next.release().await.unwrap();
    }
}

#[tokio::test]
async fn a_clock_that_is_put_forward_costs_the_locks_and_nobody_is_granted_one_for_a_lease() {
    let server = server().await;
    // The first lease of a server that is new is over.
    let (here, there) = (
        careful_client(&server.url()).await,
        careful_client(&server.url()).await,
    );
    let guard = take(&here).await;
    let before = token(&guard).await;
    let put = Instant::now();
    let (renewed, granted) = (Lateness::of(LEASE / 3), Lateness::of(2 * LEASE));
    server.put_clock(STEP);
    assert_eq!(guard.lost().await, LossReason::Expired);
    renewed.at_most(BOUND).await;
    // The key has expired; also a client that knows of no jump keeps to the quarantine.
    let new = careful_client(&server.url()).await;
    assert!(is_held(&new).await && is_held(&there).await);
    let next = take(&there).await;
    assert!(put.elapsed() + BOUND > LEASE, "{:?}", put.elapsed());
    granted.at_most(BOUND).await;
    assert!(token(&next).await > before);
    next.release().await.unwrap();
}

/// The server has carried them out after its clock was put, and before a client could say so.
#[tokio::test]
async fn answers_that_are_on_their_way_when_a_clock_jumps_grant_nothing() {
    let server = server().await;
    let proxy = Proxy::to(server.address()).await;
    let here = client(&proxy.url(&server.url())).await;
    let there = client(&server.url()).await;
    for _ in 0..5 {
        // The first that is answered shows the jump; the second came to a lock whose lease has ended early.
        let first = here.lock("order:process:1").unwrap();
        first
            .acquire(PATIENCE)
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
        let held = take(&there).await;
        proxy.hold(Direction::ToServer);
        let asked = proxy.asked();
        let first = tokio::spawn(first.acquire_owned(Duration::ZERO));
        until_asked(&proxy, asked + 1).await;
        let second = here.lock(NAME).unwrap().acquire_owned(Duration::ZERO);
        let second = tokio::spawn(second);
        until_asked(&proxy, asked + 2).await;
        server.put_clock(STEP);
        proxy.heal().await;
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert!(first.is_err() && second.is_err(), "{first:?} {second:?}");
        drop(held);
        server.put_clock(0);
        server.restart().await;
    }
}

async fn until_asked(proxy: &Proxy, times: usize) {
    eventually("it is asked", async || proxy.asked() >= times).await;
}

#[tokio::test]
async fn a_clock_that_is_put_back_costs_nothing_and_tokens_go_on() {
    let server = server().await;
    let (here, there) = (
        careful_client(&server.url()).await,
        careful_client(&server.url()).await,
    );
    let guard = take(&here).await;
    let mut last = token(&guard).await;
    server.put_clock(-STEP);
    for _ in 0..6 {
        sleep(LEASE / 3).await;
        assert!(guard.is_valid() && is_held(&there).await);
    }
    guard.release().await.unwrap();
    for client in [&there, &here, &there] {
        let guard = take(client).await;
        let next = token(&guard).await;
        assert!(next > last, "{next} after {last}");
        last = next;
        guard.release().await.unwrap();
    }
    // A client that has seen no other time.
    let new = careful_client(&server.url()).await;
    let guard = take(&new).await;
    assert!(token(&guard).await > last);
    guard.release().await.unwrap();
}

#[tokio::test]
async fn tokens_do_not_go_back_when_a_clock_goes_forward_and_back() {
    let server = server().await;
    let here = careful_client(&server.url()).await;
    let mut last = 0;
    for seconds in [0, STEP, 0, -STEP, 0] {
        server.put_clock(seconds);
        let guard = take(&here).await;
        let next = token(&guard).await;
        assert!(next > last, "{next} after {last}");
        last = next;
        drop(guard);
        sleep(Duration::from_millis(20)).await;
    }
}

/// The replica is a master before the last grant: it never knows of that.
#[tokio::test]
async fn tokens_grow_when_a_replica_takes_over_that_lacks_the_last_one_and_whose_clock_is_behind() {
    for knows_the_server in [false, true] {
        let server = server().await;
        let here = client(&server.url()).await;
        if knows_the_server {
            take(&here).await.release().await.unwrap();
        }
        let replica = server.replica().await;
        replica.put_clock(-5);
        replica.promote().await;
        let last = take(&here).await;
        let before = token(&last).await;
        server.kill().await;
        let there = careful_client(&replica.url()).await;
        let next = token(&take(&there).await).await;
        assert!(next > before, "{next} after {before}");
    }
}

/// The second lacks all that the first has granted, its note included: both have that of the server before.
#[tokio::test]
async fn tokens_grow_when_a_replica_takes_over_that_knows_nothing_of_the_one_before() {
    let server = RedisServer::start().await;
    let here = careful_client(&server.url()).await;
    take(&here).await.release().await.unwrap();
    let (first, second) = tokio::join!(server.replica(), server.replica());
    let mut last = 0;
    for replica in [&first, &second] {
        replica.promote().await;
        let there = careful_client(&replica.url()).await;
        for _ in 0..100 {
            let guard = take(&there).await;
            let next = token(&guard).await;
            assert!(next > last, "{next} after {last}");
            last = next;
            guard.release().await.unwrap();
        }
    }
}

#[tokio::test]
async fn tokens_grow_over_a_thousand_servers_in_a_row() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let mut last = 0;
    for number in 0..1_000 {
        // As a server finds it that takes over from another.
        let change = "for _, key in ipairs(redis.call('KEYS', 'lock:*server*')) do \
             local note = redis.call('GET', key) \
             redis.call('SET', key, ARGV[1] .. string.sub(note, string.find(note, ' '), -1)) end";
        let () = server
            .ask(&["EVAL", change, "0", &format!("{number:040x}")])
            .await
            .unwrap();
        let guard = take(&here).await;
        let next = token(&guard).await;
        assert!(next > last, "{number}: {next} after {last}");
        last = next;
        guard.release().await.unwrap();
    }
}
