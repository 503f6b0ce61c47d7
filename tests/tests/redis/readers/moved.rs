//! Readers in a cluster, and behind Sentinels.

use std::sync::Arc;
use std::time::Duration;

use lock_core::backend::{Attempt, Backend, Grant};
use lock_core::redis::RedisBackend;
use lock_core::{ListedLock, LockName, LockProvider};
use lock_tests::servers::{Direction, Proxy, RedisCluster, RedisSentinels, RedisServer, Server};
use lock_tests::{eventually, redis_key};
use tokio::time::{sleep, timeout};

use super::{FOR_EVER, backend, is_refused, key, members, reads, set, take, wait_for, writes};
use crate::support::{LEASE, NAME, PATIENCE};

#[tokio::test]
async fn in_a_cluster_readers_and_writers_wake_each_other() {
    let cluster = RedisCluster::patient().await;
    let url = &cluster.urls()[0];
    let one = Arc::new(backend(url, FOR_EVER).await);
    let two = Arc::new(backend(url, FOR_EVER).await);
    let (first, second) = (take(&one, &reads()).await, take(&two, &reads()).await);
    let writer = tokio::spawn({
        let two = Arc::clone(&two);
        async move { wait_for(&two, &writes()).await }
    });
    sleep(LEASE / 4).await;
    first.release().await.unwrap();
    assert!(!writer.is_finished());
    second.release().await.unwrap();
    let writer = timeout(PATIENCE, writer).await.expect("it is woken");
    let reader = tokio::spawn(async move { wait_for(&one, &reads()).await });
    sleep(LEASE / 4).await;
    writer.unwrap().release().await.unwrap();
    let reader = timeout(PATIENCE, reader).await.expect("it is woken");
    drop(reader.unwrap());
}

#[tokio::test]
async fn readers_hold_while_the_slot_of_their_lock_is_moved() {
    let cluster = RedisCluster::patient().await;
    let url = &cluster.urls()[0];
    let (one, two) = (backend(url, LEASE).await, backend(url, LEASE).await);
    let (first, second) = (take(&one, &reads()).await, take(&two, &reads()).await);
    let master = cluster.master_of(&key()).await.port();
    let to = cluster.nodes().iter().find(|node| node.port() != master);
    cluster
        .move_slot(&key(), to.unwrap(), async {
            // While some of its keys are here and some there.
            assert!(first.lease().is_valid() && second.lease().is_valid());
        })
        .await;
    sleep(LEASE).await;
    assert!(first.lease().is_valid() && second.lease().is_valid());
    assert!(is_refused(&one, &writes()).await);
    first.release().await.unwrap();
    second.release().await.unwrap();
    let writer = timeout(PATIENCE, wait_for(&two, &writes())).await;
    drop(writer.unwrap());
}

#[tokio::test]
async fn readers_that_the_next_master_knows_go_on_after_a_fail_over() {
    let set = RedisSentinels::start().await;
    let lease = Duration::from_secs(6);
    let careful = async || {
        let backend = RedisBackend::builder(&set.url()).lease(lease);
        backend.connect().await.unwrap()
    };
    let (one, two) = (careful().await, careful().await);
    let (first, second) = (wait_for(&one, &reads()).await, take(&two, &reads()).await);
    set.until_replicated().await;
    let former = set.master().await;
    set.fail_over().await;
    set.until_replaced(former).await;
    sleep(lease).await;
    assert!(first.lease().is_valid() && second.lease().is_valid());
    assert!(is_refused(&one, &writes()).await);
    first.release().await.unwrap();
    second.release().await.unwrap();
    drop(wait_for(&two, &writes()).await);
}

/// Moves these keys alone: the slot is on its way.
async fn begin_to_move(cluster: &RedisCluster, keys: &[&str]) {
    let from = cluster.master_of(&key()).await;
    let others = cluster.nodes().iter();
    let to = others.clone().find(|node| node.port() != from.port());
    let to = to.unwrap();
    let slot: u16 = from.ask(&["CLUSTER", "KEYSLOT", &key()]).await.unwrap();
    let slot = slot.to_string();
    for (node, state, other) in [(to, "IMPORTING", from), (from, "MIGRATING", to)] {
        let other: String = other.ask(&["CLUSTER", "MYID"]).await.unwrap();
        let () = node
            .ask(&["CLUSTER", "SETSLOT", &slot, state, &other])
            .await
            .unwrap();
    }
    let (host, port) = (to.address().ip().to_string(), to.port().to_string());
    for key in keys {
        let moved: String = from
            .ask(&["MIGRATE", &host, &port, key, "0", "5000"])
            .await
            .unwrap();
        assert_eq!(moved, "OK");
    }
}

#[tokio::test]
async fn a_lock_whose_set_of_readers_has_moved_already_is_held_and_no_error() {
    let cluster = RedisCluster::patient().await;
    let url = &cluster.urls()[0];
    let (one, two) = (backend(url, FOR_EVER).await, backend(url, FOR_EVER).await);
    let held = take(&one, &reads()).await;
    begin_to_move(&cluster, &[&set()]).await;
    assert!(is_refused(&two, &writes()).await);
    // Whose keys are in two places: as that of a writer whose key is on its way.
    let error = two.try_acquire(&reads()).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("is being moved"), "{error}");
    assert!(held.lease().is_valid());
}

/// One call asks for the readers of both.
#[tokio::test]
async fn a_list_while_a_slot_moves_has_what_is_there_and_says_that_there_is_more() {
    let cluster = RedisCluster::patient().await;
    let url = &cluster.urls()[0];
    let one = backend(url, FOR_EVER).await;
    let locks = LockProvider::new(backend(url, FOR_EVER).await);
    let bucket = |key: &str| key.split_once('}').unwrap().0.to_owned();
    let same = (0..).map(|id| LockName::new("order", "process", 1_000 + id).unwrap());
    let mut same = same.filter(|name| bucket(&redis_key("", name)) == bucket(&key()));
    let other = same.next().unwrap();
    let moved = take(&one, &reads()).await;
    let stays = locks.lock(other.clone()).unwrap().shared();
    let stays = stays.acquire(Duration::ZERO).await.unwrap();
    let listing = locks.list(10).await.unwrap();
    assert!(listing.is_complete() && listing.locks().len() == 2);
    begin_to_move(&cluster, &[&set()]).await;
    let listing = locks.list(10).await.unwrap();
    let keys: Vec<_> = listing.locks().iter().map(ListedLock::key).collect();
    assert_eq!(keys, [redis_key("", &other)]);
    assert!(!listing.is_complete());
    // The value of a lock as well, which is read before.
    begin_to_move(&cluster, &[&key()]).await;
    assert!(!locks.list(10).await.unwrap().is_complete());
    assert!(moved.lease().is_valid() && stays.is_valid());
}

/// By their instances.
async fn readers_of(server: &RedisServer) -> Vec<String> {
    let of_reader = |member: String| Some(member.split_once('&')?.1.to_owned());
    let mut readers: Vec<_> = members(server)
        .await
        .into_iter()
        .filter_map(of_reader)
        .collect();
    readers.sort();
    readers
}

#[tokio::test]
async fn readers_that_are_gone_leave_the_set_also_after_another_server_has_taken_over() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let named = async |url: &str, name: &str| {
        let backend = RedisBackend::builder(url).lease(2 * LEASE).instance(name);
        backend.quarantine(Duration::ZERO).connect().await.unwrap()
    };
    let gone = named(&proxy.url(&server.url()), "gone").await;
    let stays = named(&server.url(), "stays").await;
    let comes = named(&server.url(), "comes").await;
    let (ended, held) = (take(&gone, &reads()).await, take(&stays, &reads()).await);
    let () = server.ask(&["SAVE"]).await.unwrap();
    proxy.hold(Direction::ToServer);
    server.restart().await;
    assert_eq!(readers_of(&server).await, ["gone", "stays"]);
    eventually("those that are gone have left", async || {
        if let Ok(Attempt::Granted(grant)) = comes.try_acquire(&reads()).await {
            grant.release().await.unwrap();
        }
        readers_of(&server).await == ["stays"]
    })
    .await;
    assert!(!ended.lease().is_valid(), "beside its share");
    assert!(held.lease().is_valid() && is_refused(&comes, &writes()).await);
    held.release().await.unwrap();
    drop(take(&comes, &writes()).await);
}

/// As where a slot, or a fail-over, brings it to a server whose clock is ahead.
#[tokio::test]
async fn the_times_of_another_server_end_no_share() {
    let server = RedisServer::start().await;
    let (one, two) = (
        backend(&server.url(), 4 * LEASE).await,
        backend(&server.url(), 4 * LEASE).await,
    );
    for is_mixed in [false, true] {
        let held = take(&one, &reads()).await;
        let set = set();
        let by_another = "local value = redis.call('GET', KEYS[1]) \
             redis.call('SET', KEYS[1], string.sub(value, 1, -17) .. ARGV[1], 'KEEPTTL') \
             redis.call('ZADD', KEYS[2], 1, redis.call('ZRANGE', KEYS[2], 0, 0)[1])";
        let another = "00000000000000aa";
        let () = server
            .ask(&["EVAL", by_another, "2", &key(), &set, another])
            .await
            .unwrap();
        if is_mixed {
            // By the clock of this one.
            take(&two, &reads()).await.release().await.unwrap();
            let listing = two.list(10).await.unwrap();
            assert_eq!(listing.locks().len(), 1, "it is listed");
        }
        assert_eq!(members(&server).await.len(), 1);
        assert!(is_refused(&two, &writes()).await, "{is_mixed}");
        let holder = two.holder(&NAME.parse().unwrap()).await.unwrap();
        assert!(holder.is_some(), "{is_mixed}: it is held, and named so");
        held.release().await.unwrap();
        take(&two, &writes()).await.release().await.unwrap();
    }
}
