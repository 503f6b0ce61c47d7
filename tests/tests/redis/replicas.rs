//! Locks that replicas are to know of.

use std::time::Duration;

use lock_core::redis::RedisBackend;
use lock_core::{LockName, LockProvider};
use lock_tests::servers::{RedisServer, Server};
use lock_tests::{Lateness, eventually, redis_key};
use tokio::time::{sleep, timeout};

use crate::support::{BOUND, LEASE, NAME, PATIENCE, client, is_held, take, token, try_once};

/// How long replicas have: a ninth of a short lease.
const WITHIN: Duration = LEASE.checked_div(9).unwrap();

async fn replicated(url: &str, replicas: u8) -> LockProvider {
    let backend = RedisBackend::builder(url)
        .lease(LEASE)
        .quarantine(Duration::ZERO)
        .replicas(replicas);
    LockProvider::new(backend.connect().await.unwrap())
}

fn key() -> String {
    redis_key("", &NAME.parse().unwrap())
}

#[tokio::test]
async fn a_lock_that_a_replica_knows_survives_its_master() {
    let server = RedisServer::start().await;
    let replica = server.replica().await;
    let here = replicated(&server.url(), 1).await;
    for id in 0..50 {
        let name = LockName::new("order", "process", id).unwrap();
        let lock = here.lock(name.clone()).unwrap();
        let guard = lock.acquire(PATIENCE).await.unwrap();
        // Known the moment that it is granted, and not a little later.
        let known: Option<String> = replica.ask(&["GET", &redis_key("", &name)]).await.unwrap();
        let token = token(&guard).await.to_string();
        assert!(known.unwrap().contains(&token));
        guard.release().await.unwrap();
    }
    let guard = take(&here).await;
    server.kill().await;
    replica.promote().await;
    let there = client(&replica.url()).await;
    assert!(is_held(&there).await);
    let before = token(&guard).await;
    assert!(token(&take(&there).await).await > before);
}

#[tokio::test]
async fn a_lock_that_too_few_replicas_know_is_given_back_and_is_no_contention() {
    let server = RedisServer::start().await;
    let replica = server.replica().await;
    let (here, there) = (
        replicated(&server.url(), 1).await,
        client(&server.url()).await,
    );
    take(&here).await.release().await.unwrap();
    replica.freeze().await;
    let (waited, given_back) = (Lateness::of(WITHIN), Lateness::of(Duration::ZERO));
    let error = try_once(&here).await.unwrap_err();
    waited.check(BOUND).await;
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("replicas"), "{error}");
    // Given back: it is free, and not because it has expired.
    eventually("it is free", async || !is_held(&there).await).await;
    given_back.at_most(LEASE).await;
    let error = here.claim(["order:process:7"], 1).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    // One more than there are.
    let two = replicated(&server.url(), 2).await;
    replica.thaw().await;
    assert!(try_once(&two).await.unwrap_err().is_unavailable());
    // Retried within the wait.
    take(&here).await.release().await.unwrap();
}

#[tokio::test]
async fn what_is_held_outlives_a_replica_that_is_silent() {
    let server = RedisServer::start().await;
    let replica = server.replica().await;
    let here = replicated(&server.url(), 1).await;
    let guard = take(&here).await;
    replica.freeze().await;
    sleep(2 * LEASE).await;
    assert!(guard.is_valid());
    guard.release().await.unwrap();
    assert_eq!(server.ask::<u32>(&["EXISTS", &key()]).await.unwrap(), 0);
}

#[tokio::test]
async fn releases_are_heard_while_replicas_are_waited_for() {
    let server = RedisServer::start().await;
    let replica = server.replica().await;
    let (here, there) = (
        replicated(&server.url(), 1).await,
        client(&server.url()).await,
    );
    for _ in 0..20 {
        let guard = take(&there).await;
        let waiting = tokio::spawn({
            let here = here.clone();
            async move { take(&here).await }
        });
        eventually("it is subscribed", async || {
            let answer: (String, u32) = server.ask(&["PUBSUB", "NUMSUB", &key()]).await.unwrap();
            answer.1 == 1
        })
        .await;
        let late = Lateness::of(Duration::ZERO);
        guard.release().await.unwrap();
        let guard = timeout(PATIENCE, waiting).await.unwrap().unwrap();
        late.at_most(BOUND).await;
        guard.release().await.unwrap();
    }
    drop(replica);
}

#[tokio::test]
async fn many_locks_are_known_to_replicas_by_few_questions() {
    let server = RedisServer::start().await;
    let _replica = server.replica().await;
    let here = replicated(&server.url(), 1).await;
    let names = (0..500).map(|id| LockName::new("order", "process", id).unwrap());
    let guards: Vec<_> = names
        .map(|name| {
            let lock = here.lock(name).unwrap();
            tokio::spawn(async move { lock.acquire(PATIENCE).await.unwrap() })
        })
        .collect();
    for guard in guards {
        guard.await.unwrap().release().await.unwrap();
    }
    let stats: String = server.ask(&["INFO", "commandstats"]).await.unwrap();
    let line = stats.lines().find(|line| line.starts_with("cmdstat_wait:"));
    let calls = line.unwrap().split(['=', ',']).nth(1).unwrap();
    assert!(calls.parse::<u32>().unwrap() < 100, "{calls} questions");
}
