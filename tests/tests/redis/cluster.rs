//! What happens to a cluster alone: slots that move, masters that are succeeded.

use std::time::{Duration, Instant};

use lock_core::redis::{RedisBackend, RedisBuilder};
use lock_core::{LockName, LockProvider};
use lock_tests::servers::{Direction, Proxy, RedisCluster, RedisServer, Server};
use lock_tests::{Lateness, eventually, redis_key};
use tokio::time::{sleep, timeout};

use crate::support::{BOUND, LEASE, NAME, PATIENCE, client, is_held, take, token, try_once};

fn key() -> String {
    redis_key("", &NAME.parse().unwrap())
}

/// Another member than the one that has the lock.
async fn other_than(cluster: &RedisCluster) -> &RedisServer {
    let master = cluster.master_of(&key()).await.port();
    let mut nodes = cluster.nodes().iter();
    nodes.find(|node| node.port() != master).unwrap()
}

/// What Valkey says in its place; as long, so that the answer stays whole.
#[expect(clippy::ptr_arg, reason = "what the proxy calls")]
fn as_valkey(piece: &mut Vec<u8>) {
    replace(piece, b"redis_mode:cluster\r\n", b"server_mode:cluster\n");
}

/// Then `cluster_enabled:1` alone says it.
#[expect(clippy::ptr_arg, reason = "what the proxy calls")]
fn without_mode(piece: &mut Vec<u8>) {
    replace(piece, b"redis_mode:cluster\r\n", b"other_mode:unknown\r\n");
}

fn replace(piece: &mut [u8], from: &[u8; 20], to: &[u8; 20]) {
    let at = piece.windows(20).position(|bytes| bytes == from);
    if let Some(at) = at {
        piece[at..at + 20].copy_from_slice(to);
    }
}

#[tokio::test]
async fn a_cluster_is_known_by_each_of_the_fields_that_servers_have_for_it() {
    let cluster = RedisCluster::patient().await;
    let mut proxies = Vec::new();
    for node in cluster.nodes() {
        let proxy = Proxy::to(node.address()).await;
        let port = proxy.address().port().to_string();
        let announce = ["CONFIG", "SET", "cluster-announce-port", &port];
        node.ask::<()>(&announce).await.unwrap();
        proxies.push(proxy);
    }
    let ports: Vec<_> = proxies.iter().map(|proxy| proxy.address().port()).collect();
    for node in cluster.nodes() {
        eventually("the members know the way through", async || {
            let nodes: String = node.ask(&["CLUSTER", "NODES"]).await.unwrap();
            ports
                .iter()
                .all(|port| nodes.contains(&format!(":{port}@")))
        })
        .await;
    }
    for change in [as_valkey, without_mode] {
        for proxy in &proxies {
            proxy.corrupt(Direction::ToClient, change);
        }
        let here = client(&format!("redis://{}", proxies[0].address())).await;
        for id in 0..30 {
            let name = LockName::new("order", "process", id).unwrap();
            let guard = here.lock(name).unwrap().acquire(PATIENCE).await.unwrap();
            guard.release().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_lock_whose_slot_moves_is_held_on() {
    let cluster = RedisCluster::patient().await;
    let (here, there) = (
        client(&cluster.urls()[0]).await,
        client(&cluster.urls()[1]).await,
    );
    let guard = take(&here).await;
    let waiting = tokio::spawn({
        let there = there.clone();
        async move { take(&there).await }
    });
    sleep(LEASE / 2).await;
    let to = other_than(&cluster).await;
    cluster.move_slot(&key(), to, async {}).await;
    assert_eq!(cluster.master_of(&key()).await.port(), to.port());
    sleep(2 * LEASE).await;
    assert!(guard.is_valid() && !waiting.is_finished());
    // A waiter learns of the release at the new place.
    let before = token(&guard).await;
    let late = Lateness::of(Duration::ZERO);
    guard.release().await.unwrap();
    let next = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    late.at_most(BOUND).await;
    assert!(token(&next).await > before);
    next.release().await.unwrap();
}

#[tokio::test]
async fn a_lock_whose_slot_is_half_moved_for_a_while_is_held_on() {
    let cluster = RedisCluster::patient().await;
    let (here, there) = (
        client(&cluster.urls()[0]).await,
        client(&cluster.urls()[1]).await,
    );
    let guard = take(&here).await;
    let to = other_than(&cluster).await;
    let mut waiting = None;
    let meanwhile = async {
        // One of the keys is there, the other here: for now no node can be asked.
        let there = there.clone();
        waiting = Some(tokio::spawn(async move { take(&there).await }));
        sleep(LEASE / 2).await;
        assert!(guard.is_valid());
    };
    cluster.move_slot(&key(), to, meanwhile).await;
    // Renewed in time, at the new place.
    sleep(2 * LEASE).await;
    assert!(guard.is_valid() && !waiting.as_ref().unwrap().is_finished());
    guard.release().await.unwrap();
    let next = timeout(PATIENCE, waiting.unwrap()).await.unwrap().unwrap();
    assert!(is_held(&here).await);
    next.release().await.unwrap();
}

#[tokio::test]
async fn a_master_that_is_succeeded_by_its_replica_keeps_its_locks_and_grants_none_for_a_lease() {
    const LONG: Duration = Duration::from_secs(10);
    let cluster = RedisCluster::start().await;
    let connect = async |url: &str| {
        let backend = RedisBackend::builder(url).lease(LONG).replicas(1);
        backend.connect().await.unwrap()
    };
    let master = cluster.master_of(&key()).await;
    let replica = cluster.replica(master).await;
    // Any member knows the others.
    let url = other_than(&cluster).await.url();
    let here = LockProvider::new(connect(&url).await);
    let there = RedisBackend::builder(&url).lease(LONG);
    let there = LockProvider::new(there.connect().await.unwrap());
    let guard = take(&here).await;
    let before = token(&guard).await;
    master.kill().await;
    let killed = Instant::now();
    eventually("the replica is a master", async || {
        let info: String = replica.ask(&["INFO", "replication"]).await.unwrap();
        info.contains("role:master")
    })
    .await;
    eventually("the lock is renewed there", async || {
        let left: i64 = replica.ask(&["PTTL", &key()]).await.unwrap();
        left > 9_000
    })
    .await;
    assert!(guard.is_valid());
    guard.release().await.unwrap();
    eventually(
        "another client has found the new master",
        async || match try_once(&there).await {
            Ok(guard) => {
                assert!(guard.is_none(), "nobody is granted a lock yet");
                true
            }
            Err(error) => {
                assert!(error.is_unavailable(), "{error}");
                false
            }
        },
    )
    .await;
    let next = take(&there).await;
    assert!(killed.elapsed() + BOUND > LONG, "{:?}", killed.elapsed());
    assert!(token(&next).await > before);
    next.release().await.unwrap();
}

/// Those of the dead master's and those of the others', which are renewed beside them.
#[tokio::test]
async fn sixty_locks_outlive_the_death_of_one_of_the_masters() {
    const LONG: Duration = Duration::from_secs(10);
    let cluster = RedisCluster::start().await;
    let master = cluster.master_of(&key()).await;
    let mut replicas = Vec::new();
    for node in cluster.nodes() {
        replicas.push(cluster.replica(node).await);
    }
    let url = other_than(&cluster).await.url();
    let connect = async |builder: RedisBuilder| {
        let builder = builder.lease(LONG).quarantine(Duration::ZERO);
        LockProvider::new(builder.connect().await.unwrap())
    };
    let here = connect(RedisBackend::builder(&url).replicas(1)).await;
    let there = connect(RedisBackend::builder(&url)).await;
    let mut guards = Vec::new();
    for id in 0..60 {
        let name = LockName::new("order", "process", id).unwrap();
        let lock = here.lock(name).unwrap();
        guards.push(lock.acquire(PATIENCE).await.unwrap());
    }
    master.kill().await;
    sleep(2 * LONG).await;
    for guard in guards {
        assert!(guard.is_valid(), "{}", guard.name());
        let lock = there.lock(guard.name()).unwrap();
        eventually("it is held for all", async || {
            match lock.try_acquire(Duration::ZERO).await {
                Ok(granted) => {
                    assert!(granted.is_none(), "two have it");
                    true
                }
                // The new master may not be known yet.
                Err(error) => {
                    assert!(error.is_unavailable(), "{error}");
                    false
                }
            }
        })
        .await;
        guard.release().await.unwrap();
    }
}

#[tokio::test]
async fn a_member_that_is_dead_costs_those_who_wait_at_others_no_command() {
    let cluster = RedisCluster::start().await;
    for node in cluster.nodes() {
        // Those that live serve on.
        let alone = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
        node.ask::<()>(&alone).await.unwrap();
    }
    let master = cluster.master_of(&key()).await;
    let (here, there) = (client(&master.url()).await, client(&master.url()).await);
    let guard = take(&here).await;
    let waiting = tokio::spawn({
        let there = there.clone();
        async move { take(&there).await }
    });
    let subscribed = async || {
        let stats: String = master.ask(&["INFO", "commandstats"]).await.unwrap();
        let line = stats.lines().find(|l| l.starts_with("cmdstat_ssubscribe:"));
        line.map(|line| line.split(['=', ',']).nth(1).unwrap().to_owned())
    };
    eventually("it is subscribed", async || {
        let answer: (String, u32) = master
            .ask(&["PUBSUB", "SHARDNUMSUB", &key()])
            .await
            .unwrap();
        answer.1 == 1
    })
    .await;
    let before = subscribed().await;
    let dead = other_than(&cluster).await;
    dead.kill().await;
    // A caller asks for a lock of the dead one all the time.
    let mut ids = 0..;
    let elsewhere = loop {
        let name = LockName::new("order", "process", ids.next().unwrap()).unwrap();
        let there = there.lock(name).unwrap().try_acquire(Duration::ZERO).await;
        if let Err(error) = there {
            assert!(error.is_unavailable(), "{error}");
            break ids.start - 1;
        }
    };
    let asking = tokio::spawn({
        let name = LockName::new("order", "process", elsewhere).unwrap();
        async move { there.lock(name).unwrap().try_acquire(2 * LEASE).await }
    });
    assert!(asking.await.unwrap().unwrap_err().is_unavailable());
    assert!(guard.is_valid() && !waiting.is_finished());
    assert_eq!(subscribed().await, before);
    guard.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
}
