//! Many names together, by few calls.

use std::time::Duration;

use lock_core::{LockGuard, LockName, LockProvider};
use lock_tests::servers::{Direction, Proxy, RedisCluster, RedisServer};
use lock_tests::{eventually, redis_key};

use crate::support::{LEASE, NAME, PATIENCE, client, is_held, scripts_run, take, unhurried};

fn names(count: usize) -> Vec<LockName> {
    (0..count)
        .map(|id| LockName::new("order", "process", id).unwrap())
        .collect()
}

fn held(guards: &[LockGuard]) -> Vec<LockName> {
    let mut held: Vec<_> = guards.iter().map(|guard| guard.name().clone()).collect();
    held.sort();
    held
}

#[tokio::test]
async fn a_few_of_a_hundred_names_are_claimed_in_one_call() {
    let server = RedisServer::start().await;
    // Calls that renew are none of its own: nothing is renewed before the test is over.
    let (here, there) = (
        unhurried(&server.url()).await,
        unhurried(&server.url()).await,
    );
    let all = names(100);
    let others = there.claim(all[..90].to_vec(), 90).await.unwrap();
    assert_eq!(others.len(), 90);
    for limit in [1, 3, 10] {
        let before = scripts_run(&server).await;
        let guards = here.claim(all.clone(), limit).await.unwrap();
        assert_eq!(scripts_run(&server).await - before, 1);
        assert_eq!(guards.len(), limit);
        assert!(guards.iter().all(LockGuard::is_valid));
        // No more than that is held, not even for a moment.
        let keys: Vec<String> = server.ask(&["KEYS", "lock:*:v1-*"]).await.unwrap();
        assert_eq!(keys.len(), 90 + limit);
        for guard in guards {
            guard.release().await.unwrap();
        }
    }
    let guards = here.claim(all.clone(), 50).await.unwrap();
    assert_eq!(held(&guards), all[90..].to_vec());
    drop(others);
}

#[tokio::test]
async fn what_is_free_is_found_among_ten_thousand_in_a_few_calls() {
    let server = RedisServer::start().await;
    // Calls that renew are none of its own: nothing is renewed before the test is over.
    let (here, there) = (
        unhurried(&server.url()).await,
        unhurried(&server.url()).await,
    );
    let all = names(10_000);
    let mut others = there.claim(all.clone(), 10_000).await.unwrap();
    assert_eq!(others.len(), 10_000);
    let free = others.pop().unwrap();
    let last = free.name().clone();
    free.release().await.unwrap();
    let before = scripts_run(&server).await;
    let guards = here.claim(all, 5).await.unwrap();
    let calls = scripts_run(&server).await - before;
    assert_eq!(held(&guards), [last]);
    // No more than 256 names in a call.
    assert!(calls <= 40, "{calls} calls");
}

#[tokio::test]
async fn a_cluster_grants_no_more_than_the_limit() {
    let cluster = RedisCluster::patient().await;
    let (here, there) = (
        client(&cluster.urls()[0]).await,
        client(&cluster.urls()[1]).await,
    );
    let all = names(300);
    let some = there.claim(all.clone(), 100).await.unwrap();
    assert_eq!(some.len(), 100);
    let rest = here.claim(all.clone(), 300).await.unwrap();
    assert_eq!(rest.len(), 200);
    let mut both = [held(&some), held(&rest)].concat();
    both.sort();
    let mut all = all;
    all.sort();
    assert_eq!(both, all);
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_neither_contention_nor_a_ghost() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let here = client(&proxy.url(&server.url())).await;
    let all = names(40);
    for _ in 0..20 {
        proxy.drop_next_reply();
        let guards = here.claim(all.clone(), 10).await.unwrap();
        assert_eq!(guards.len(), 10);
        let keys: Vec<String> = server.ask(&["KEYS", "lock:*:v1-*"]).await.unwrap();
        assert_eq!(keys.len(), 10);
        for guard in guards {
            guard.release().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_claim_that_is_dropped_at_any_time_leaves_no_lock_behind() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let here = client(&proxy.url(&server.url())).await;
    proxy.delay(Duration::from_millis(5));
    for after in 0..25 {
        let here = here.clone();
        let asking = tokio::spawn(async move { drop(here.claim(names(20), 5).await) });
        tokio::time::sleep(Duration::from_millis(after)).await;
        asking.abort();
        let _ = asking.await;
    }
    eventually("nothing is left", async || {
        let keys: Vec<String> = server.ask(&["KEYS", "lock:*:v1-*"]).await.unwrap();
        keys.is_empty()
    })
    .await;
}

#[tokio::test]
async fn one_bad_key_fails_a_claim_and_nothing_stays_locked() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let all = names(20);
    let bad = redis_key("", &all[10]);
    let () = server.ask(&["LPUSH", &bad, "x"]).await.unwrap();
    let error = here.claim(all.clone(), 20).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    eventually("nothing is left", async || {
        let keys: Vec<String> = server.ask(&["KEYS", "lock:*:v1-*"]).await.unwrap();
        keys == [bad.clone()]
    })
    .await;
    let guard = take(&here).await;
    assert!(is_held(&here).await);
    guard.release().await.unwrap();
}

/// A permit's key is that of any lock: it lasts for a lease, is renewed, and is granted to others when its process is
/// gone.
#[tokio::test]
async fn a_permit_lasts_a_lease_is_renewed_and_ends_with_its_process() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let (gone, lives) = (
        client(&proxy.url(&server.url())).await,
        client(&server.url()).await,
    );
    let of = |client: &LockProvider| client.lock(NAME).unwrap().permits(2);
    let (ended, held) = (
        of(&gone).acquire(PATIENCE).await.unwrap(),
        of(&lives).acquire(PATIENCE).await.unwrap(),
    );
    let lease = i64::try_from(LEASE.as_millis()).unwrap();
    let lasts_a_lease = async |guard: &LockGuard| {
        let key = redis_key("", guard.name());
        let left: i64 = server.ask(&["PTTL", &key]).await.unwrap();
        assert!((1..=lease).contains(&left), "{left} ms");
    };
    for guard in [&ended, &held] {
        lasts_a_lease(guard).await;
    }
    tokio::time::sleep(2 * LEASE).await;
    for guard in [&ended, &held] {
        assert!(guard.is_valid());
        lasts_a_lease(guard).await;
    }
    assert!(
        of(&lives)
            .try_acquire(Duration::ZERO)
            .await
            .unwrap()
            .is_none()
    );
    proxy.hold(Direction::ToServer);
    let next = of(&lives).acquire(PATIENCE).await.unwrap();
    assert_eq!(next.name(), ended.name());
    assert!(!ended.is_valid() && held.is_valid());
    lasts_a_lease(&next).await;
}
