//! What is under the keys.

use std::time::Duration;

use lock_core::redis::RedisBackend;
use lock_core::{LockName, LockProvider};
use lock_tests::redis_key;
use lock_tests::servers::RedisServer;
use tokio::time::sleep;

use crate::support::{LEASE, NAME, PATIENCE, client, scripts_run, take, token, try_once};

async fn keys(server: &RedisServer) -> Vec<String> {
    server.ask(&["KEYS", "*"]).await.unwrap()
}

#[tokio::test]
async fn every_key_is_documented_and_has_an_end() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let names: Vec<LockName> = (0..50)
        .map(|id| LockName::new("order", "process", id).unwrap())
        .collect();
    let guards = here.acquire_all(names.clone(), PATIENCE).await.unwrap();
    let mut left = keys(&server).await;
    left.retain(|key| !key.contains("}:server-v1-"));
    left.sort();
    let mut documented: Vec<_> = names.iter().map(|name| redis_key("", name)).collect();
    documented.sort();
    assert_eq!(left, documented);
    for _ in 0..20 {
        for key in keys(&server).await {
            let end: i64 = server.ask(&["PTTL", &key]).await.unwrap();
            assert!(end > 0, "{key} never ends");
        }
        sleep(LEASE / 10).await;
    }
    drop(guards);
}

#[tokio::test]
async fn a_lock_holds_its_owner_its_token_and_its_instance() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let guard = take(&here).await;
    let key = redis_key("", guard.name());
    let value: String = server.ask(&["GET", &key]).await.unwrap();
    let (owner, rest) = value.split_once(' ').unwrap();
    assert_eq!(owner.len(), 32);
    let (held, rest) = rest.split_once(' ').unwrap();
    assert_eq!(held.len(), 31);
    assert_eq!(held.parse::<u64>().unwrap(), token(&guard).await);
    let (ahead, instance) = rest.split_once(' ').unwrap();
    assert!(ahead.parse::<u64>().is_ok(), "{value}");
    assert!(instance.ends_with(&format!(":{}", std::process::id())));
}

#[tokio::test]
async fn namespaces_keep_locks_apart() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let shop = RedisBackend::builder(&server.url())
        .namespace("shop")
        .quarantine(Duration::ZERO);
    let shop = LockProvider::new(shop.connect().await.unwrap());
    let (ours, theirs) = (take(&here).await, take(&shop).await);
    for namespace in ["", "shop"] {
        let key = redis_key(namespace, ours.name());
        assert!(keys(&server).await.contains(&key));
    }
    drop((ours, theirs));
}

#[tokio::test]
async fn renewals_stop_with_the_release() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let guard = take(&here).await;
    sleep(2 * LEASE).await;
    assert!(guard.is_valid());
    guard.release().await.unwrap();
    let before = scripts_run(&server).await;
    sleep(LEASE).await;
    assert_eq!(scripts_run(&server).await, before);
}

#[tokio::test]
async fn one_bad_key_fails_its_own_name_alone() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let bad: LockName = "order:process:bad".parse().unwrap();
    let () = server
        .ask(&["LPUSH", &redis_key("", &bad), "x"])
        .await
        .unwrap();
    let all: Vec<_> = (0..100)
        .map(|id| {
            let name = if id == 50 {
                bad.clone()
            } else {
                LockName::new("order", "process", id).unwrap()
            };
            let lock = here.lock(name).unwrap();
            tokio::spawn(async move { lock.try_acquire(Duration::ZERO).await })
        })
        .collect();
    for (id, asking) in all.into_iter().enumerate() {
        match asking.await.unwrap() {
            Ok(Some(guard)) => assert_ne!(id, 50, "{guard:?}"),
            Ok(None) => panic!("{id} is not held"),
            Err(error) => assert!(id == 50 && error.is_unavailable(), "{id}: {error}"),
        }
    }
}

#[tokio::test]
async fn braces_in_a_namespace_mean_nothing() {
    let server = RedisServer::start().await;
    let odd = RedisBackend::builder(&server.url())
        .namespace("{a}/{b}")
        .quarantine(Duration::ZERO);
    let odd = LockProvider::new(odd.connect().await.unwrap());
    let guard = take(&odd).await;
    assert!(try_once(&odd).await.unwrap().is_none());
    let key = redis_key("{a}/{b}", &NAME.parse().unwrap());
    assert!(keys(&server).await.contains(&key));
    guard.release().await.unwrap();
}
