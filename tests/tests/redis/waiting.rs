//! What waiting and holding cost.

use std::time::{Duration, Instant};

use lock_core::redis::RedisBackend;
use lock_core::{LockGuard, LockName, LockProvider};
use lock_tests::servers::{Proxy, RedisCluster, RedisServer};
use lock_tests::{Queued, eventually, redis_key};
use tokio::time::sleep;

use crate::support::{
    LEASE, NAME, PATIENCE, calls_of, client, comes_to_rest, scripts_run, take, token, try_once,
    wait_in_vain,
};

async fn connections(server: &RedisServer) -> usize {
    let list: String = server.ask(&["CLIENT", "LIST"]).await.unwrap();
    // The asking one is not theirs.
    list.lines().count() - 1
}

#[tokio::test]
async fn two_connections_are_enough_for_whatever_is_held_and_awaited() {
    let server = RedisServer::start().await;
    let before = connections(&server).await;
    let holder = client(&server.url()).await;
    let here = client(&server.url()).await;
    let names = || (0..1_000).map(|id| LockName::new("order", "process", id).unwrap());
    let guards = holder.acquire_all(names(), PATIENCE).await.unwrap();
    let waiting: Vec<_> = names()
        .map(|name| {
            let lock = here.lock(name).unwrap();
            tokio::spawn(async move { lock.acquire(PATIENCE).await.unwrap() })
        })
        .collect();
    sleep(LEASE).await;
    assert_eq!(connections(&server).await, before + 2 * 2);
    drop(guards);
    let mut guards = Vec::new();
    for waiting in waiting {
        guards.push(waiting.await.unwrap());
    }
    assert_eq!(connections(&server).await, before + 2 * 2);
}

#[tokio::test]
async fn both_connections_are_there_before_anybody_waits() {
    let server = RedisServer::start().await;
    let before = connections(&server).await;
    let here = client(&server.url()).await;
    eventually("both are there", async || {
        connections(&server).await == before + 2
    })
    .await;
    let cluster = RedisCluster::patient().await;
    let there = client(&cluster.urls()[0]).await;
    for node in cluster.nodes() {
        eventually("messages can be heard", async || {
            let list: String = node
                .ask(&["CLIENT", "LIST", "TYPE", "normal"])
                .await
                .unwrap();
            list.lines().any(|line| line.contains("resp=3"))
        })
        .await;
    }
    drop((here, there));
}

#[tokio::test]
async fn a_channel_is_subscribed_to_while_somebody_waits_and_no_longer() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let key = redis_key("", &NAME.parse().unwrap());
    let subscribers = async || {
        let answer: (String, u32) = server.ask(&["PUBSUB", "NUMSUB", &key]).await.unwrap();
        answer.1
    };
    let guard = take(&here).await;
    assert_eq!(subscribers().await, 0);
    let waiting = tokio::spawn(async move { take(&there).await });
    eventually("it is subscribed", async || subscribers().await == 1).await;
    guard.release().await.unwrap();
    let guard = waiting.await.unwrap();
    eventually("it has left", async || subscribers().await == 0).await;
    drop(guard);
}

#[tokio::test]
async fn only_a_lock_that_another_has_waited_for_sends_a_message() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let mut before = calls_of(&server, "publish").await;
    for waits in [0, 0, 1, 2, 0] {
        let guard = take(&here).await;
        // A mere try is nothing to the holder.
        assert!(try_once(&there).await.unwrap().is_none());
        for _ in 0..waits {
            wait_in_vain(&there).await;
        }
        guard.release().await.unwrap();
        let after = calls_of(&server, "publish").await;
        assert_eq!(after - before, u64::from(waits > 0), "{waits}");
        before = after;
    }
}

#[tokio::test]
async fn a_refused_client_changes_neither_owner_nor_end_of_a_lock() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&here).await;
    let key = redis_key("", guard.name());
    let value = async || server.ask::<String>(&["GET", &key]).await.unwrap();
    let left = async || server.ask::<i64>(&["PTTL", &key]).await.unwrap();
    let (before, until) = (value().await, left().await);
    assert!(try_once(&there).await.unwrap().is_none());
    assert_eq!(value().await, before);
    wait_in_vain(&there).await;
    let marked = value().await;
    assert_eq!(marked, before.replacen(' ', "!", 1));
    assert!((1..=until).contains(&left().await));
    // Renewed as before, and not marked twice.
    sleep(2 * LEASE).await;
    wait_in_vain(&there).await;
    assert_eq!(value().await, marked);
    let held = token(&guard).await;
    guard.release().await.unwrap();
    let guard = take(&there).await;
    assert!(token(&guard).await > held && !value().await.contains('!'));
    guard.release().await.unwrap();
}

#[tokio::test]
async fn who_waits_does_not_poll() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&here).await;
    let waiting = tokio::spawn(async move { take(&there).await });
    sleep(LEASE / 2).await;
    let (began, before) = (Instant::now(), scripts_run(&server).await);
    sleep(3 * LEASE).await;
    let asked = scripts_run(&server).await - before;
    // Three renewals in a lease, a try at its end as it was last seen, and what a restless machine adds.
    let leases = began.elapsed().as_millis() / LEASE.as_millis() + 1;
    let most = 4 * leases;
    assert!(
        u128::from(asked) <= most,
        "{asked} calls in {leases} leases"
    );
    guard.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn ten_thousand_locks_are_held_over_a_network_that_is_slower_than_a_round_of_renewals() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    // So that a busy machine has time for its own part in it.
    let lease = 2 * LEASE;
    let backend = RedisBackend::builder(&proxy.url(&server.url()))
        .lease(lease)
        .quarantine(Duration::ZERO);
    let here = LockProvider::builder(backend.connect().await.unwrap());
    let here = here.response_timeout(PATIENCE).build();
    let names = || (0..10_000).map(|id| LockName::new("order", "process", id).unwrap());
    loop {
        let queued = Queued::here_and_there();
        let guards = here.claim(names(), 10_000).await.unwrap();
        assert_eq!(guards.len(), 10_000);
        // 40 calls, four at a time: ten round trips take longer than the third of a lease.
        proxy.delay(lease / 50);
        sleep(3 * lease).await;
        let lost = guards.iter().filter(|guard| !guard.is_valid()).count();
        proxy.delay(Duration::ZERO);
        // Where a process or the server had no processor it shows nothing.
        if lost > 0 && queued.starves(lease) {
            drop(guards);
            eventually("they are free", async || is_empty(&server).await).await;
            continue;
        }
        assert_eq!(lost, 0);
        break;
    }
}

async fn is_empty(server: &RedisServer) -> bool {
    let keys: Vec<String> = server.ask(&["KEYS", "lock:*:v1-*"]).await.unwrap();
    keys.is_empty()
}

#[tokio::test]
async fn renewals_of_ten_thousand_locks_travel_together() {
    let server = RedisServer::start().await;
    // So that a busy machine has time for its own part in it.
    let lease = 3 * LEASE;
    let backend = RedisBackend::builder(&server.url())
        .lease(lease)
        .quarantine(Duration::ZERO);
    let here = LockProvider::builder(backend.connect().await.unwrap());
    let here = here.response_timeout(PATIENCE).build();
    let names: Vec<_> = (0..10_000)
        .map(|id| LockName::new("order", "process", id).unwrap())
        .collect();
    let guards = here.claim(names, 10_000).await.unwrap();
    assert_eq!(guards.len(), 10_000);
    let (began, before) = (Instant::now(), scripts_run(&server).await);
    sleep(lease).await;
    let asked = scripts_run(&server).await - before;
    // 40 calls each time: once in a third of a lease, and what was under way at either end.
    let times = 3 * began.elapsed().as_millis() / lease.as_millis() + 2;
    assert!(
        (80..=40 * times).contains(&u128::from(asked)),
        "{asked} calls"
    );
    assert!(guards.iter().all(LockGuard::is_valid));
    drop(guards);
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test]
async fn a_thousand_waiters_over_a_slow_link_come_to_rest() {
    const NAMES: u64 = 1_000;
    let server = RedisServer::start().await;
    // So long that no renewal is among what is counted.
    let lease = Duration::from_secs(3_600);
    let client = async |url: &str| {
        let backend = RedisBackend::builder(url)
            .lease(lease)
            .quarantine(Duration::ZERO);
        LockProvider::new(backend.connect().await.unwrap())
    };
    let holder = client(&server.url()).await;
    let names = || (0..NAMES).map(|id| LockName::new("order", "process", id).unwrap());
    let guards = holder.acquire_all(names(), PATIENCE).await.unwrap();
    let link = Proxy::to(server.address()).await;
    // An answer takes longer than a channel is kept that no waiter listens at.
    link.delay(Duration::from_millis(60));
    let here = client(&link.url(&server.url())).await;
    let waiting: Vec<_> = names()
        .map(|name| {
            let lock = here.lock(name).unwrap();
            tokio::spawn(async move { lock.acquire(lease).await.unwrap() })
        })
        .collect();
    let subscribed = async || {
        server
            .ask::<Vec<String>>(&["PUBSUB", "CHANNELS"])
            .await
            .unwrap()
            .len()
    };
    eventually("all are subscribed", async || {
        subscribed().await == usize::try_from(NAMES).unwrap()
    })
    .await;
    // One for each name would be a round of tries.
    comes_to_rest(&server, NAMES / 2, Duration::from_secs(3)).await;
    link.heal().await;
    drop(guards);
    for waiting in waiting {
        drop(waiting.await.unwrap());
    }
}
