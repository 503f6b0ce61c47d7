//! Locks that the server keeps at least so long, also without their holder.

use std::time::{Duration, SystemTime};

use lock_core::{LockGuard, LockName, LockPolicy, LockProvider};
use lock_tests::servers::RedisServer;
use lock_tests::{Lateness, abandon, redis_key};
use redis::Value;
use tokio::time::{Instant, sleep};

use crate::earlier::Earlier;
use crate::support::{BOUND, LEASE, NAME, client, is_held, take, token, wait_in_vain};

/// Longer than a lease.
const LONG: Duration = Duration::from_secs(5);

/// Shorter than one.
const SHORT: Duration = Duration::from_millis(800);

async fn acquire(client: &LockProvider, at_least: Duration) -> LockGuard {
    let policy = LockPolicy::background_job().with_at_least(at_least);
    client.acquire(NAME, policy).await.unwrap()
}

/// For how long the key is there.
async fn left(server: &RedisServer) -> Duration {
    let key = redis_key("", &NAME.parse().unwrap());
    let left: i64 = server.ask(&["PTTL", &key]).await.unwrap();
    Duration::from_millis(left.try_into().unwrap())
}

#[tokio::test]
async fn a_kept_lock_has_no_owner_and_says_until_when() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = acquire(&here, LONG).await;
    let issued = token(&guard).await;
    let holder = there.holder(NAME).await.unwrap().unwrap();
    assert_eq!(holder.until(), None);
    guard.release().await.unwrap();
    let earlier = Earlier::of(&server);
    let no_owner = "0".repeat(32);
    let value = earlier.value().await;
    assert!(
        value.starts_with(&format!("{no_owner} {issued:031} ")),
        "{value}"
    );
    assert!(left(&server).await <= LONG);

    // One that waits leaves its mark, and one of an earlier version as well, which learns how long it takes.
    wait_in_vain(&there).await;
    assert_eq!(earlier.value().await, value.replacen(' ', "!", 1));
    let (_, said) = earlier.call("0").await;
    let [Value::Int(1), Value::Int(wait)] = said[..] else {
        panic!("{said:?}");
    };
    assert!(
        Duration::from_millis(wait.unsigned_abs()) > LONG - LEASE,
        "{wait}"
    );
    let holder = there.holder(NAME).await.unwrap().unwrap();
    let until = holder.until().unwrap().duration_since(SystemTime::now());
    assert!(until.unwrap() > LONG - LEASE, "{holder:?}");
    let listed = there.list(10).await.unwrap();
    assert_eq!(listed.locks().len(), 1);
    let left = listed.locks()[0].holder().until().unwrap();
    let left = left.duration_since(SystemTime::now()).unwrap();
    assert!(left > LONG - LEASE && left <= LONG, "{left:?}");
    let next = take(&there).await;
    assert!(token(&next).await > issued);
    next.release().await.unwrap();
    assert_eq!(there.list(10).await.unwrap().locks().len(), 0);
}

/// A waiter learns that it is not as long as the lease.
#[tokio::test]
async fn a_lock_that_is_kept_for_less_than_a_lease_opens_in_its_time() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    for _ in 0..3 {
        let guard = acquire(&here, SHORT).await;
        let since = Instant::now();
        let lateness = Lateness::of(SHORT);
        let waiting = tokio::spawn({
            let there = there.clone();
            async move { take(&there).await }
        });
        sleep(Duration::from_millis(100)).await;
        assert!(left(&server).await > SHORT);
        guard.release().await.unwrap();
        let left = left(&server).await;
        assert!(left <= SHORT, "{left:?}");
        let next = waiting.await.unwrap();
        assert!(since.elapsed() + Duration::from_millis(20) >= SHORT);
        lateness.at_most(BOUND).await;
        next.release().await.unwrap();
    }
}

#[tokio::test]
async fn renewals_do_not_shorten_the_time_of_a_kept_lock() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let guard = acquire(&here, 2 * LONG).await;
    sleep(2 * LEASE).await;
    assert!(guard.is_valid());
    let left_of = left(&server).await;
    assert!(left_of > LONG, "{left_of:?}");
    sleep(2 * LONG - 2 * LEASE).await;
    // Renewed as any other from then on.
    let left_of = left(&server).await;
    assert!(guard.is_valid() && left_of <= LEASE, "{left_of:?}");
    guard.release().await.unwrap();
    assert!(!is_held(&here).await);
}

/// Nothing can be written any more.
#[tokio::test]
async fn a_server_without_memory_keeps_a_lock_as_well() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let guard = acquire(&here, LONG).await;
    let _: String = server
        .ask(&["CONFIG", "SET", "maxmemory", "1"])
        .await
        .unwrap();
    guard.release().await.unwrap();
    assert!(left(&server).await <= LONG);
    let _: String = server
        .ask(&["CONFIG", "SET", "maxmemory", "0"])
        .await
        .unwrap();
    assert!(is_held(&here).await);
}

/// No caller has seen it.
#[tokio::test]
async fn what_a_caller_that_left_was_granted_is_not_kept() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let (mut round, mut have_left) = (0_u32, 0);
    while have_left < 10 {
        round += 1;
        let name = LockName::new("test", "leave", round).unwrap();
        let policy = LockPolicy::background_job().with_at_least(10 * LONG);
        // The command was sent by the first poll.
        if let Some(granted) = abandon(here.acquire(&name, policy), 1 + round % 3).await {
            drop(granted.unwrap());
            continue;
        }
        have_left += 1;
        let free = there.acquire(&name, LONG).await.expect("it is free");
        free.release().await.unwrap();
    }
}
