//! Slots of a cluster that move: their names are free or held as before, unless a master lost locks.

use std::time::{Duration, Instant};

use lock_core::redis::RedisBackend;
use lock_core::{LockGuard, LockName, LockProvider};
use lock_tests::servers::{RedisCluster, RedisServer, Server};
use lock_tests::{Lateness, Log, eventually, redis_key};
use tokio::time::{sleep, timeout};

use crate::support::{BOUND, PATIENCE, commands_run, token};

const LEASE: Duration = Duration::from_secs(5);

/// By when a name of a slot that was moved is granted.
const SOON: Duration = Duration::from_millis(400);

async fn client(cluster: &RedisCluster) -> LockProvider {
    client_of(&cluster.urls()[0]).await
}

/// With a quarantine, as production has it.
async fn client_of(url: &str) -> LockProvider {
    let backend = RedisBackend::builder(url).lease(LEASE);
    LockProvider::new(backend.connect().await.unwrap())
}

/// Names of one slot, which the same bucket has.
fn names<const N: usize>() -> [LockName; N] {
    let all = (0..).map(|id| LockName::new("order", "process", id).unwrap());
    let mut of_slot = all.filter(|name| redis_key("", name).starts_with("lock:{b7}:"));
    std::array::from_fn(|_| of_slot.next().unwrap())
}

fn key() -> String {
    let [name] = names();
    redis_key("", &name)
}

/// All masters have served for a lease: no lock that was lost before is held any more.
async fn until_calm(cluster: &RedisCluster) {
    for node in cluster.nodes() {
        until_up_for_a_lease(node).await;
    }
}

async fn until_up_for_a_lease(server: &RedisServer) {
    eventually("it has been up for a lease", async || {
        let info: String = server.ask(&["INFO", "server"]).await.unwrap();
        let up = info
            .lines()
            .find_map(|line| line.strip_prefix("uptime_in_seconds:"));
        up.unwrap().parse::<u64>().unwrap() > LEASE.as_secs() + 1
    })
    .await;
}

async fn others(cluster: &RedisCluster) -> [&RedisServer; 2] {
    others_than(cluster, cluster.master_of(&key()).await)
}

#[tokio::test]
async fn names_of_a_slot_that_was_moved_are_free_or_held_as_before() {
    let log = Log::of_process();
    let cluster = RedisCluster::start().await;
    until_calm(&cluster).await;
    let (here, there) = (client(&cluster).await, client(&cluster).await);
    let [held, free, third] = names();
    let guard = here
        .lock(held.clone())
        .unwrap()
        .acquire(PATIENCE)
        .await
        .unwrap();
    let before = here
        .lock(free.clone())
        .unwrap()
        .acquire(PATIENCE)
        .await
        .unwrap();
    let last = token(&before).await;
    before.release().await.unwrap();
    let [to, then] = others(&cluster).await;
    cluster.move_slot(&key(), to, async {}).await;
    let late = Lateness::of(Duration::ZERO);
    let next = there
        .lock(free.clone())
        .unwrap()
        .acquire(PATIENCE)
        .await
        .unwrap();
    late.at_most(SOON).await;
    assert!(token(&next).await > last);
    next.release().await.unwrap();
    let refused = there
        .lock(held.clone())
        .unwrap()
        .try_acquire(Duration::ZERO)
        .await;
    assert!(refused.unwrap().is_none() && guard.is_valid());
    // A process that knows nothing of before.
    cluster.move_slot(&key(), then, async {}).await;
    let new = client(&cluster).await;
    let late = Lateness::of(Duration::ZERO);
    new.lock(third)
        .unwrap()
        .acquire(PATIENCE)
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    late.at_most(SOON).await;
    let waiting =
        tokio::spawn(async move { there.lock(held).unwrap().acquire(PATIENCE).await.unwrap() });
    sleep(2 * LEASE).await;
    assert!(guard.is_valid() && !waiting.is_finished());
    let late = Lateness::of(Duration::ZERO);
    guard.release().await.unwrap();
    drop(timeout(PATIENCE, waiting).await.unwrap().unwrap());
    late.at_most(BOUND).await;
    assert_eq!(log.count("no lock is granted until"), 0);
    assert_eq!(log.count("no lock of these slots is granted"), 0);
}

/// The master starts again, with what it has saved or with nothing, and gives the slot away.
async fn is_not_granted_for_a_lease_after_a_restart(
    cluster: &RedisCluster,
    from: &RedisServer,
    guard: &LockGuard,
    before: u64,
) {
    let lock = |client: &LockProvider| client.lock(guard.name().clone()).unwrap();
    let before_its_start = Instant::now();
    from.restart().await;
    let [to, _] = others_than(cluster, from);
    eventually("the cluster serves again", async || {
        let info: String = from.ask(&["CLUSTER", "INFO"]).await.unwrap();
        info.contains("cluster_state:ok")
    })
    .await;
    cluster.move_slot_from(from, &key(), to, async {}).await;
    let there = client_of(&to.url()).await;
    let refused = lock(&there).try_acquire(Duration::ZERO).await;
    assert!(refused.unwrap().is_none(), "it may still be held");
    let next = lock(&there).acquire(PATIENCE).await.unwrap();
    assert!(
        before_its_start.elapsed() + BOUND > LEASE,
        "{:?}",
        before_its_start.elapsed()
    );
    assert!(!guard.is_valid() && token(&next).await > before);
}

#[tokio::test]
async fn nobody_is_granted_a_lock_of_a_slot_that_came_from_a_master_that_lost_its_locks() {
    let cluster = RedisCluster::start().await;
    until_calm(&cluster).await;
    let here = client(&cluster).await;
    let [name, other] = names();
    let lock = |client: &LockProvider| client.lock(name.clone()).unwrap();
    // The note is in the snapshot, and the lock is not.
    let earlier = here.lock(other).unwrap().acquire(PATIENCE).await.unwrap();
    earlier.release().await.unwrap();
    let from = cluster.master_of(&key()).await;
    from.ask::<()>(&["SAVE"]).await.unwrap();
    let guard = lock(&here).acquire(PATIENCE).await.unwrap();
    let before = token(&guard).await;
    is_not_granted_for_a_lease_after_a_restart(&cluster, from, &guard, before).await;
}

/// Nothing comes with it, and the master that has it now lacks nothing of its own.
#[tokio::test]
async fn nobody_is_granted_a_lock_of_a_slot_that_came_empty_from_a_master_that_lost_all() {
    let cluster = RedisCluster::start().await;
    until_calm(&cluster).await;
    let here = client(&cluster).await;
    let [name] = names();
    let lock = |client: &LockProvider| client.lock(name.clone()).unwrap();
    let guard = lock(&here).acquire(PATIENCE).await.unwrap();
    let before = token(&guard).await;
    let from = cluster.master_of(&key()).await;
    is_not_granted_for_a_lease_after_a_restart(&cluster, from, &guard, before).await;
}

#[tokio::test]
async fn nobody_is_granted_a_lock_of_a_slot_that_came_from_a_replica_that_was_just_promoted() {
    let log = Log::of_process();
    let cluster = RedisCluster::start().await;
    let master = cluster.master_of(&key()).await;
    let replica = cluster.replica(master).await;
    until_calm(&cluster).await;
    until_up_for_a_lease(&replica).await;
    let [to, asked] = others_than(&cluster, master);
    // It knows all masters, and asks for nothing until the slot has moved.
    let here = client_of(&asked.url()).await;
    let [name] = names();
    let lock = |client: &LockProvider| client.lock(name.clone()).unwrap();
    lock(&here)
        .acquire(PATIENCE)
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    master.kill().await;
    let killed = Instant::now();
    eventually("the replica is a master", async || {
        let info: String = replica.ask(&["INFO", "replication"]).await.unwrap();
        info.contains("role:master")
    })
    .await;
    let late = Lateness::of(Duration::ZERO);
    eventually("the others know", async || {
        let nodes: String = to.ask(&["CLUSTER", "NODES"]).await.unwrap();
        let port = format!(":{}@", replica.port());
        let line = nodes.lines().find(|line| line.contains(&port));
        line.is_some_and(|line| line.contains(" master "))
    })
    .await;
    cluster.move_slot_from(&replica, &key(), to, async {}).await;
    let new = client_of(&to.url()).await;
    for client in [&here, &new] {
        let refused = lock(client).try_acquire(Duration::ZERO).await;
        assert!(!matches!(refused, Ok(Some(_))), "{refused:?}");
    }
    lock(&new)
        .acquire(PATIENCE)
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    late.at_most(2 * LEASE).await;
    assert!(killed.elapsed() + BOUND > LEASE, "{:?}", killed.elapsed());
    assert!(log.count("no lock of these slots is granted") > 0);
    assert_eq!(log.count("was restarted or replaced"), 0);
}

#[tokio::test]
async fn a_slot_that_is_half_moved_is_asked_for_seldom_and_named() {
    let cluster = RedisCluster::start().await;
    until_calm(&cluster).await;
    let (here, there) = (client(&cluster).await, client(&cluster).await);
    let [held, free] = names();
    let guard = here.lock(held).unwrap().acquire(PATIENCE).await.unwrap();
    let [to, _] = others(&cluster).await;
    let commands = async || {
        let mut all = 0;
        for node in cluster.nodes() {
            all += commands_run(node).await;
        }
        all
    };
    let mut waiting = None;
    let meanwhile = async {
        let lock = there.lock(free.clone()).unwrap();
        let wait = Duration::from_secs(2);
        let before = commands().await;
        let error = lock.acquire(wait).await.unwrap_err();
        let asked = commands().await - before;
        assert!(asked < 150, "{asked} commands in 2 s");
        assert!(error.is_unavailable(), "{error}");
        assert!(error.to_string().contains("is being moved"), "{error}");
        waiting = Some(tokio::spawn(async move { lock.acquire(PATIENCE).await }));
        sleep(BOUND).await;
    };
    Box::pin(cluster.move_slot(&key(), to, meanwhile)).await;
    // The waiter's own pause between two errors is up to a second.
    let late = Lateness::of(Duration::from_secs(1));
    let next = timeout(PATIENCE, waiting.unwrap()).await.unwrap().unwrap();
    let next = next.unwrap();
    late.at_most(SOON).await;
    next.release().await.unwrap();
    assert!(guard.is_valid());
    guard.release().await.unwrap();
}

fn others_than<'a>(cluster: &'a RedisCluster, one: &RedisServer) -> [&'a RedisServer; 2] {
    let mut others = cluster
        .nodes()
        .iter()
        .filter(|node| node.port() != one.port());
    [others.next().unwrap(), others.next().unwrap()]
}
