//! Waiters whose second connection tells them nothing, or tells of another server: a lock that is free is
//! theirs all the same, and the server is not flooded with their questions.

use std::time::Duration;

use lock_core::redis::RedisBackend;
use lock_core::{LockGuard, LockName, LockProvider};
use lock_tests::servers::{Proxy, RedisServer};
use lock_tests::{Lateness, eventually, redis_key};
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::support::{BOUND, NAME, PATIENCE, comes_to_rest, take};

/// So long that no waiter is helped by its end.
const LEASE: Duration = Duration::from_secs(60);

/// By when a waiter asks by itself, at the latest, and is answered.
const BY_ITSELF: Duration = Duration::from_millis(1_500);

async fn client(url: &str) -> LockProvider {
    let backend = RedisBackend::builder(url)
        .lease(LEASE)
        .quarantine(Duration::ZERO);
    LockProvider::new(backend.connect().await.unwrap())
}

fn waiting(client: &LockProvider) -> JoinHandle<LockGuard> {
    let client = client.clone();
    tokio::spawn(async move { take(&client).await })
}

/// How many listen to the channel of the lock.
async fn listeners(server: &mut MultiplexedConnection) -> u32 {
    let key = redis_key("", &NAME.parse().unwrap());
    let mut question = redis::cmd("PUBSUB");
    let question = question.arg("NUMSUB").arg(&key);
    let (_, count): (String, u32) = question.query_async(server).await.unwrap();
    count
}

/// The holder releases, and the waiter has it.
async fn is_handed_over(held: LockGuard, waiting: JoinHandle<LockGuard>, within: Duration) {
    let late = Lateness::of(Duration::ZERO);
    held.release().await.unwrap();
    let guard = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    late.at_most(within).await;
    guard.release().await.unwrap();
}

/// Ends the connection over which the scripts run.
async fn kill_commands(server: &RedisServer) {
    let list: String = server.ask(&["CLIENT", "LIST"]).await.unwrap();
    let mut lines = list.lines();
    let line = lines.find(|line| line.contains("cmd=evalsha")).unwrap();
    let id = line.split([' ', '=']).nth(1).unwrap();
    server
        .ask::<u32>(&["CLIENT", "KILL", "ID", id])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_waiter_hears_of_releases_at_the_server_of_its_commands_when_its_address_has_moved() {
    let (former, present) = (RedisServer::start().await, RedisServer::start().await);
    let address = Proxy::to(former.address()).await;
    let here = client(&address.url(&former.url())).await;
    take(&here).await.release().await.unwrap();
    let there = client(&present.url()).await;
    for _ in 0..3 {
        let guard = take(&there).await;
        address.lead_to(present.address());
        // The former server lives, and so does the connection of the listener to it.
        let scripting: String = former.ask(&["CLIENT", "LIST"]).await.unwrap();
        if scripting.contains("cmd=evalsha") {
            kill_commands(&former).await;
        }
        let waiting = waiting(&here);
        let mut looking = present.connection().await;
        eventually("it listens at the present server", async || {
            listeners(&mut looking.clone()).await == 1
        })
        .await;
        sleep(BOUND).await;
        is_handed_over(guard, waiting, BOUND).await;
        eventually("it has left", async || {
            listeners(&mut looking.clone()).await == 0
        })
        .await;
        looking = former.connection().await;
        assert_eq!(listeners(&mut looking).await, 0);
    }
}

#[tokio::test]
async fn a_waiter_whose_listener_stays_with_another_server_asks_by_itself() {
    let (former, present) = (RedisServer::start().await, RedisServer::start().await);
    let address = Proxy::to(former.address()).await;
    let here = client(&address.url(&former.url())).await;
    take(&here).await.release().await.unwrap();
    let there = client(&present.url()).await;
    let guard = take(&there).await;
    address.lead_to(present.address());
    kill_commands(&former).await;
    // The commands are there; each connection that is made after them leads back.
    let name = LockName::new("order", "process", 7).unwrap();
    let other = here.lock(name).unwrap().acquire(PATIENCE).await.unwrap();
    other.release().await.unwrap();
    address.lead_to(former.address());
    // Which is a master no more: two of them would grant nothing.
    let follow = ["REPLICAOF", "127.0.0.1", "1"];
    former.ask::<()>(&follow).await.unwrap();
    let waiting = waiting(&here);
    comes_to_rest(&present, 40, Duration::from_secs(2)).await;
    is_handed_over(guard, waiting, BY_ITSELF).await;
}

#[tokio::test]
async fn a_waiter_whose_user_may_not_subscribe_any_more_asks_by_itself() {
    let server = RedisServer::start().await;
    let user = [
        "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all",
    ];
    server.ask::<()>(&user).await.unwrap();
    let holder = client(&server.url()).await;
    let here = client(&server.url_for("app:secret")).await;
    let guard = take(&holder).await;
    let waiting = waiting(&here);
    let looking = server.connection().await;
    let is_listening = async || listeners(&mut looking.clone()).await == 1;
    eventually("it listens", is_listening).await;
    let reset = ["ACL", "SETUSER", "app", "resetchannels"];
    server.ask::<()>(&reset).await.unwrap();
    eventually("it does not listen", async || !is_listening().await).await;
    comes_to_rest(&server, 60, Duration::from_secs(2)).await;
    is_handed_over(guard, waiting, BY_ITSELF).await;
    // The right is given back: it listens again.
    let guard = take(&holder).await;
    let waiting = self::waiting(&here);
    server
        .ask::<()>(&["ACL", "SETUSER", "app", "allchannels"])
        .await
        .unwrap();
    eventually("it listens again", is_listening).await;
    sleep(BOUND).await;
    is_handed_over(guard, waiting, BOUND).await;
}

#[tokio::test]
async fn a_waiter_whose_listener_is_lost_while_the_server_takes_no_more_clients_asks_by_itself() {
    let server = RedisServer::start().await;
    let (holder, here) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&holder).await;
    let waiting = waiting(&here);
    let mut looking = server.connection().await;
    eventually("it listens", async || {
        listeners(&mut looking.clone()).await == 1
    })
    .await;
    for command in [
        ["CONFIG", "SET", "maxclients", "1"],
        ["CLIENT", "KILL", "TYPE", "pubsub"],
    ] {
        let mut order = redis::cmd(command[0]);
        order.arg(&command[1..]);
        order
            .query_async::<redis::Value>(&mut looking)
            .await
            .unwrap();
    }
    sleep(BOUND).await;
    assert_eq!(listeners(&mut looking).await, 0);
    is_handed_over(guard, waiting, BY_ITSELF).await;
}

#[tokio::test]
async fn three_thousand_names_are_awaited_under_a_small_limit_of_what_subscribers_are_sent() {
    const NAMES: usize = 3_000;
    let limit = ("client-output-buffer-limit", "pubsub 16kb 8kb 1");
    let server = RedisServer::with(&[limit]).await;
    let (holder, here) = (client(&server.url()).await, client(&server.url()).await);
    let names = || (0..NAMES).map(|id| LockName::new("order", "process", id).unwrap());
    let mut guards: Vec<LockGuard> = holder.claim(names(), NAMES).await.unwrap();
    assert_eq!(guards.len(), NAMES);
    let mut waiting: Vec<_> = names()
        .map(|name| {
            let lock = here.lock(name).unwrap();
            tokio::spawn(async move { lock.acquire(LEASE).await.unwrap() })
        })
        .collect();
    eventually("all are subscribed", async || {
        let channels: Vec<String> = server.ask(&["PUBSUB", "CHANNELS"]).await.unwrap();
        channels.len() == NAMES
    })
    .await;
    comes_to_rest(&server, 100, Duration::from_secs(2)).await;
    for at in [NAMES - 1, NAMES / 2, 0] {
        let name = LockName::new("order", "process", at).unwrap();
        let held = guards.iter().position(|guard| *guard.name() == name);
        let held = guards.swap_remove(held.unwrap());
        is_handed_over(held, waiting.remove(at), BOUND).await;
    }
    // Messages of all together are more than the limit: what is not heard is asked for.
    drop(guards);
    for waiting in waiting {
        drop(timeout(PATIENCE, waiting).await.unwrap().unwrap());
    }
}
