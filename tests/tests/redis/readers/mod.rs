//! Readers: locks that are held together, and the writers that wait for them.

mod gone;
mod moved;
mod places;
mod rights;
mod waiting;

use std::time::Duration;

use lock_core::backend::{Attempt, Backend, Grant, LockRequest};
use lock_core::redis::{RedisBackend, RedisGrant};
use lock_core::{LockMode, LossReason};
use lock_tests::servers::RedisServer;
use lock_tests::{eventually, redis_key};
use tokio::time::{sleep, timeout};

use crate::earlier::Earlier;
use crate::support::{LEASE, NAME, PATIENCE, calls_of};

/// No lease ends and no pause is over while a test lasts: what happens is because of a message.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// As another process has it, without a quarantine: its server is new.
async fn backend(url: &str, lease: Duration) -> RedisBackend {
    let backend = RedisBackend::builder(url).lease(lease);
    backend.quarantine(Duration::ZERO).connect().await.unwrap()
}

fn writes() -> LockRequest {
    LockRequest::new(NAME.parse().unwrap())
}

fn reads() -> LockRequest {
    writes().with_mode(LockMode::Shared)
}

fn key() -> String {
    redis_key("", &NAME.parse().unwrap())
}

async fn attempt(backend: &RedisBackend, request: &LockRequest) -> Option<RedisGrant> {
    match backend.try_acquire(request).await.unwrap() {
        Attempt::Granted(grant) => Some(grant),
        Attempt::Held { .. } => None,
    }
}

async fn take(backend: &RedisBackend, request: &LockRequest) -> RedisGrant {
    attempt(backend, request).await.expect("it is granted")
}

async fn is_refused(backend: &RedisBackend, request: &LockRequest) -> bool {
    attempt(backend, request).await.is_none()
}

/// Asks and waits, as a provider does.
async fn wait_for(backend: &RedisBackend, request: &LockRequest) -> RedisGrant {
    let mut changed = None;
    loop {
        match backend.try_acquire(request).await {
            Ok(Attempt::Granted(grant)) => return grant,
            Ok(Attempt::Held { retry_in }) => {
                if let Some(changed) = changed.take() {
                    let _ = timeout(retry_in.unwrap_or(PATIENCE), changed).await;
                }
                changed = Some(backend.changed(request));
            }
            Err(error) => {
                assert!(error.is_unavailable(), "{error}");
                sleep(LEASE / 20).await;
            }
        }
    }
}

/// Waits until it has ended, and says why.
async fn lost(grant: &RedisGrant) -> LossReason {
    eventually("it has ended", async || !grant.lease().is_valid()).await;
    grant.lease().reason().unwrap()
}

fn set() -> String {
    format!("{}:readers", key())
}

/// What the set of readers has: shares, and places of writers that wait.
async fn members(server: &RedisServer) -> Vec<String> {
    server.ask(&["ZRANGE", &set(), "0", "-1"]).await.unwrap()
}

/// How many writers have a place before readers.
async fn places(server: &RedisServer) -> usize {
    let members = members(server).await;
    members.iter().filter(|it| it.starts_with('?')).count()
}

#[tokio::test]
async fn readers_of_several_processes_hold_together_and_no_writer_beside_them() {
    let server = RedisServer::start().await;
    let (one, two) = (
        backend(&server.url(), LEASE).await,
        backend(&server.url(), LEASE).await,
    );
    let first = take(&one, &reads()).await;
    let (second, third) = (take(&two, &reads()).await, take(&two, &reads()).await);
    for grant in [first, second, third] {
        assert!(is_refused(&one, &writes()).await && is_refused(&two, &writes()).await);
        // Each is renewed for itself.
        sleep(LEASE).await;
        assert!(grant.lease().is_valid());
        grant.release().await.unwrap();
    }
    let writer = take(&one, &writes()).await;
    assert!(is_refused(&two, &reads()).await && is_refused(&two, &writes()).await);
    writer.release().await.unwrap();
    drop(take(&two, &reads()).await);
}

#[tokio::test]
async fn a_writer_comes_after_all_tokens_of_writers_before_the_readers() {
    let server = RedisServer::start().await;
    let one = backend(&server.url(), LEASE).await;
    let token = async || {
        let writer = take(&one, &writes()).await;
        let token = writer.fencing_token().await.unwrap();
        writer.release().await.unwrap();
        token
    };
    let before = token().await;
    take(&one, &reads()).await.release().await.unwrap();
    assert!(token().await > before);
}

#[tokio::test]
async fn what_readers_leave_ends_and_each_key_of_theirs_ends_by_itself() {
    let server = RedisServer::start().await;
    let one = backend(&server.url(), LEASE).await;
    let (first, second) = (take(&one, &reads()).await, take(&one, &reads()).await);
    for key in [key(), set()] {
        let left: i64 = server.ask(&["PTTL", &key]).await.unwrap();
        assert!((1..=2_000).contains(&left), "{key}: {left}");
    }
    first.release().await.unwrap();
    second.release().await.unwrap();
    for key in [key(), set()] {
        assert_eq!(server.ask::<u32>(&["EXISTS", &key]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn readers_are_named_with_their_instances() {
    let server = RedisServer::start().await;
    let named = async |name: &str| {
        let backend = RedisBackend::builder(&server.url()).instance(name);
        backend.quarantine(Duration::ZERO).connect().await.unwrap()
    };
    let (one, two) = (named("web-1").await, named("web-2").await);
    let name = NAME.parse().unwrap();
    assert!(one.holder(&name).await.unwrap().is_none());
    let (first, second) = (take(&one, &reads()).await, take(&two, &reads()).await);
    let listing = one.list(10).await.unwrap();
    let listed = listing.locks().iter().map(|lock| {
        assert_eq!(
            (lock.key(), lock.holder().mode()),
            (&*key(), LockMode::Shared)
        );
        lock.holder().instance().unwrap().to_owned()
    });
    let mut listed: Vec<_> = listed.collect();
    listed.sort();
    assert_eq!(listed, ["web-1", "web-2"]);
    // The one that is left, though the other made the lock.
    first.release().await.unwrap();
    let holder = one.holder(&name).await.unwrap().unwrap();
    assert_eq!(
        (holder.mode(), holder.instance()),
        (LockMode::Shared, Some("web-2"))
    );
    second.release().await.unwrap();
    drop(take(&one, &writes()).await);
}

#[tokio::test]
async fn writers_alone_run_no_command_for_readers() {
    let server = RedisServer::start().await;
    let (one, two) = (
        backend(&server.url(), LEASE).await,
        backend(&server.url(), LEASE).await,
    );
    for _ in 0..3 {
        let held = take(&one, &writes()).await;
        let request = writes();
        let (next, ()) = tokio::join!(wait_for(&two, &request), async {
            sleep(LEASE / 2).await;
            held.release().await.unwrap();
        });
        next.release().await.unwrap();
    }
    let stats: String = server.ask(&["INFO", "commandstats"]).await.unwrap();
    assert!(stats.contains("cmdstat_evalsha") && !stats.contains("cmdstat_z"));
}

#[tokio::test]
async fn a_writer_of_an_earlier_version_is_refused_beside_readers_and_woken_by_the_last() {
    let server = RedisServer::start().await;
    let one = backend(&server.url(), LEASE).await;
    let (first, second) = (take(&one, &reads()).await, take(&one, &reads()).await);
    let earlier = Earlier::of(&server);
    let (_, said) = earlier.call("0").await;
    let [redis::Value::Int(1), redis::Value::Int(wait)] = said[..] else {
        panic!("{said:?}");
    };
    assert!((-2_000..0).contains(&wait), "{wait}");
    // Its release of what it does not have changes nothing.
    let (_, said) = earlier.call("1").await;
    assert_eq!(said[..], [redis::Value::Int(1), redis::Value::Int(0)]);
    assert!(is_refused(&one, &writes()).await);
    first.release().await.unwrap();
    // The connection has rehearsed it.
    let published = calls_of(&server, "publish").await;
    second.release().await.unwrap();
    assert_eq!(calls_of(&server, "publish").await, published + 1);
    let (_, said) = earlier.call("0").await;
    assert!(said.is_empty(), "{said:?}");
    assert!(is_refused(&one, &reads()).await);
}
