//! What the log says of an outage: that it begins, few lines while it lasts, and that it is over.

use std::time::Duration;

use futures_util::future::join_all;
use lock_core::LockProvider;
use lock_tests::Log;
use lock_tests::servers::{RedisCluster, RedisServer, Server};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::Level;

use crate::support::{LEASE, PATIENCE, client};

/// How long a server is down.
const DOWN: Duration = Duration::from_secs(12);

/// How often one thing is logged meanwhile: at its beginning, 5 s and, where it is late, 15 s later.
const TOLD: usize = 3;

/// Many names, held by one process and waited for by another.
async fn contend(holder: &LockProvider, waiter: &LockProvider) -> JoinSet<()> {
    let mut waiting = JoinSet::new();
    for number in 0..50 {
        let name = format!("order:process:{number}");
        let guard = holder.lock(&*name).unwrap().acquire(PATIENCE).await;
        let (guard, lock) = (guard.unwrap(), waiter.lock(&*name).unwrap());
        waiting.spawn(async move {
            let mut waiting = tokio::spawn(async move {
                // Its wait is longer than the outage.
                lock.acquire(PATIENCE).await.unwrap()
            });
            guard.lost().await;
            drop(guard);
            let guard = (&mut waiting).await.unwrap();
            guard.release().await.unwrap();
        });
    }
    sleep(LEASE).await;
    waiting
}

/// A lock that another process holds is waited for, and released.
async fn hand_over(holder: &LockProvider, waiter: &LockProvider, name: &str) {
    let guard = holder.lock(name).unwrap().acquire(PATIENCE).await.unwrap();
    let lock = waiter.lock(name).unwrap();
    let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await.unwrap() });
    sleep(LEASE / 2).await;
    guard.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
}

/// At most so many lines for each thing that two providers met, and each with a server and a remedy.
fn assert_few(log: &Log, things: usize, over: &[&str]) {
    let lines = log.lines(Level::INFO);
    let all = lines.join("\n");
    for words in over {
        assert!(all.contains(words), "{words} is missing in {all}");
    }
    let troubles = log.lines(Level::WARN).len();
    assert!(troubles <= 2 * things * TOLD, "{troubles} lines: {all}");
    let over = lines.len() - troubles;
    assert!(over <= 2 * things, "{over} times over: {all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_is_a_handful_of_lines_and_one_that_it_is_back() {
    let server = RedisServer::start().await;
    let (holder, waiter) = (client(&server.url()).await, client(&server.url()).await);
    let log = Log::of_process();
    let waiting = contend(&holder, &waiter).await;
    assert_eq!(log.lines(Level::WARN), Vec::<String>::new());
    server.kill().await;
    sleep(DOWN).await;
    server.restart().await;
    waiting.join_all().await;
    hand_over(&holder, &waiter, "order:process:0").await;
    // Commands, releases, renewals, and losses.
    assert_few(
        &log,
        4,
        &[
            "connected to the Redis server again",
            "subscribed to releases in Redis again",
            &server.address().to_string(),
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_cluster_that_is_down_is_a_handful_of_lines_and_one_that_it_is_back() {
    let cluster = RedisCluster::start().await;
    let urls = cluster.urls();
    let (holder, waiter) = (client(&urls[0]).await, client(&urls[1]).await);
    let log = Log::of_process();
    let waiting = contend(&holder, &waiter).await;
    let node = &cluster.nodes()[2];
    node.kill().await;
    sleep(DOWN).await;
    node.restart().await;
    waiting.join_all().await;
    let names: Vec<_> = (0..50)
        .map(|number| format!("order:process:{number}"))
        .collect();
    join_all(names.iter().map(|name| hand_over(&holder, &waiter, name))).await;
    // The same of one node, and where buckets are.
    assert_few(
        &log,
        5,
        &[
            "connected to the Redis server again",
            "subscribed to releases in Redis again",
            &node.address().to_string(),
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_subscriptions_is_told_every_few_seconds() {
    let server = RedisServer::start().await;
    let (holder, waiter) = (client(&server.url()).await, client(&server.url()).await);
    let log = Log::of_process();
    let lock = "order:process:42";
    let guard = holder.lock(lock).unwrap().acquire(PATIENCE).await.unwrap();
    let refuse = ["ACL", "SETUSER", "default", "resetchannels"];
    let () = server.ask(&refuse).await.unwrap();
    let waiting = waiter.lock(lock).unwrap();
    let waiting = tokio::spawn(async move { waiting.acquire(PATIENCE).await });
    sleep(DOWN / 2).await;
    let allow = ["ACL", "SETUSER", "default", "allchannels"];
    let () = server.ask(&allow).await.unwrap();
    sleep(LEASE).await;
    guard.release().await.unwrap();
    drop(waiting.await.unwrap().unwrap());
    let refused = "refuses a subscription";
    assert!(
        (1..=2).contains(&log.count(refused)),
        "{}",
        log.lines(Level::INFO).join("\n")
    );
    assert_eq!(log.count("accepts subscriptions again"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_guards_that_are_lost_by_one_cause_are_two_lines_with_their_number() {
    const LOCKS: usize = 5_000;
    let server = RedisServer::start().await;
    let holder = client(&server.url()).await;
    let names = (0..LOCKS).map(|number| format!("order:process:{number}"));
    let guards = holder.claim(names, LOCKS).await.unwrap();
    assert_eq!(guards.len(), LOCKS);
    let log = Log::of_process();
    server.kill().await;
    for guard in &guards {
        guard.lost().await;
    }
    drop(guards);
    // Until those that came after the first were counted, and until a release would have been given up.
    sleep(2 * LEASE).await;
    log.check_lost_together(LOCKS);
    let warnings = log.lines(Level::WARN).len();
    assert!(warnings <= 2 + 3 * TOLD, "{warnings} lines");
}
