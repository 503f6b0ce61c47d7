//! Faults of the network and the server, one after the other.

use std::time::Duration;

use lock_core::redis::RedisBackend;
use lock_core::{LockProvider, LossReason};
use lock_tests::servers::{Direction, Proxy, RedisServer, Server};
use lock_tests::{Lateness, eventually, redis_key};
use tokio::time::sleep;

use crate::support::{
    BOUND, LEASE, NAME, PATIENCE, RESPONSE_TIMEOUT, client, is_held, take, token, try_once,
};

/// Kills all connections of clients but the asking one.
async fn kill_clients(server: &RedisServer) {
    let killed: u32 = server
        .ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
        .await
        .unwrap();
    let pubsub: u32 = server
        .ask(&["CLIENT", "KILL", "TYPE", "pubsub"])
        .await
        .unwrap();
    assert!(killed + pubsub > 0, "somebody is connected");
}

/// Whether a caller waits for the lock.
async fn is_subscribed(server: &RedisServer) -> bool {
    let key = redis_key("", &NAME.parse().unwrap());
    let answer: (String, u32) = server.ask(&["PUBSUB", "NUMSUB", &key]).await.unwrap();
    answer.1 > 0
}

#[tokio::test]
async fn a_lock_survives_the_death_of_its_connection() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&here).await;
    for _ in 0..3 {
        kill_clients(&server).await;
        sleep(LEASE).await;
        assert!(guard.is_valid() && is_held(&there).await);
    }
    guard.release().await.unwrap();
    take(&there).await.release().await.unwrap();
}

#[tokio::test]
async fn waiters_subscribe_again_after_the_death_of_their_connection() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&here).await;
    let waiting = tokio::spawn(async move { take(&there).await });
    let subscribed = async || is_subscribed(&server).await;
    eventually("it is subscribed", &subscribed).await;
    kill_clients(&server).await;
    eventually("it is not", async || !subscribed().await).await;
    eventually("it is subscribed again", &subscribed).await;
    // Nothing but the message can be that fast: what is left of the lease is longer.
    sleep(LEASE / 3).await;
    let late = Lateness::of(Duration::ZERO);
    guard.release().await.unwrap();
    let guard = waiting.await.unwrap();
    late.at_most(BOUND).await;
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_frozen_costs_the_lock_at_its_deadline_and_no_caller_more_than_its_own() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&here).await;
    let deadline = Lateness::of(LEASE);
    server.freeze().await;
    assert!(guard.is_valid(), "not before its deadline");
    let wait = Duration::from_millis(300);
    let in_time = Lateness::of(wait + RESPONSE_TIMEOUT);
    // Looked at beside the other, whose time can be over later.
    let lost = tokio::spawn({
        let lost = guard.lost();
        async move {
            let reason = lost.await;
            deadline.at_most(BOUND).await;
            reason
        }
    });
    let error = there
        .lock("order:process:7")
        .unwrap()
        .try_acquire(wait)
        .await
        .unwrap_err();
    in_time.at_most(BOUND).await;
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(lost.await.unwrap(), LossReason::Expired);
    server.thaw().await;
    take(&there).await.release().await.unwrap();
}

#[tokio::test]
async fn a_pause_that_is_shorter_than_the_lease_costs_nothing() {
    // A third more of it than two tries are apart is left for what the machine adds.
    let lease = 3 * LEASE;
    let server = RedisServer::start().await;
    let backend = RedisBackend::builder(&server.url())
        .lease(lease)
        .quarantine(Duration::ZERO);
    let here = LockProvider::new(backend.connect().await.unwrap());
    let guard = take(&here).await;
    for _ in 0..3 {
        let () = server.ask(&["CLIENT", "PAUSE", "1800"]).await.unwrap();
        sleep(lease / 2).await;
        assert!(guard.is_valid());
    }
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_swallowed_network_costs_the_lock_before_anybody_else_has_it() {
    for direction in [Direction::ToServer, Direction::ToClient] {
        let server = RedisServer::start().await;
        let proxy = Proxy::to(server.address()).await;
        let here = client(&proxy.url(&server.url())).await;
        let there = client(&server.url()).await;
        let guard = take(&here).await;
        let before = token(&guard).await;
        proxy.swallow(direction);
        let (deadline, key_ends) = (Lateness::of(LEASE), Lateness::of(2 * LEASE));
        let lost = tokio::spawn({
            let lost = guard.lost();
            async move {
                lost.await;
                deadline.at_most(BOUND).await;
            }
        });
        // Renewals that arrive keep the key; their answers that do not arrive keep no guard.
        let next = take(&there).await;
        assert!(!guard.is_valid(), "{direction:?}: the loss comes first");
        key_ends.at_most(BOUND).await;
        lost.await.unwrap();
        assert!(token(&next).await > before);
    }
}

#[tokio::test]
async fn resets_of_the_connection_cost_nothing() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let here = client(&proxy.url(&server.url())).await;
    let guard = take(&here).await;
    for _ in 0..20 {
        proxy.reset();
        sleep(LEASE / 10).await;
        assert!(guard.is_valid());
    }
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_lost_reply_is_neither_contention_nor_a_ghost() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let here = client(&proxy.url(&server.url())).await;
    let there = client(&server.url()).await;
    for _ in 0..150 {
        proxy.drop_next_reply();
        let guard = try_once(&here).await.unwrap().expect("it is free, or ours");
        assert!(is_held(&there).await);
        // The reply to the release is lost: it was done all the same.
        proxy.drop_next_reply();
        guard.release().await.unwrap();
        assert!(!is_held(&there).await);
    }
}

#[tokio::test]
async fn a_copy_of_an_acquire_that_comes_after_the_release_leaves_no_lock_behind() {
    // Everything that the server is asked is kept, with its arguments.
    let server = RedisServer::with(&[
        ("slowlog-log-slower-than", "0"),
        ("slowlog-max-len", "1000"),
    ])
    .await;
    let proxy = Proxy::to(server.address()).await;
    let connect = async |url: &str| {
        let long = RedisBackend::builder(url).quarantine(Duration::ZERO);
        LockProvider::new(long.connect().await.unwrap())
    };
    let here = connect(&proxy.url(&server.url())).await;
    let there = connect(&server.url()).await;
    let key = redis_key("", &NAME.parse().unwrap());
    // So that the server knows the script.
    take(&here).await.release().await.unwrap();
    server.ask::<()>(&["SLOWLOG", "RESET"]).await.unwrap();
    // Not that to the other connection: a script's answer begins with a list of two numbers.
    proxy.drop_next_reply_that(|reply| {
        let text = String::from_utf8_lossy(reply);
        text.starts_with('*') && text.contains("\r\n*2\r\n:")
    });
    let guard = try_once(&here).await.unwrap();
    let guard = guard.expect("it is free, or ours");
    let log: Vec<Vec<redis::Value>> = server.ask(&["SLOWLOG", "GET", "-1"]).await.unwrap();
    let copies: Vec<Vec<String>> = log
        .into_iter()
        .map(|mut entry| redis::from_redis_value(entry.swap_remove(3)).unwrap())
        .filter(|words: &Vec<String>| words[0] == "EVALSHA" && words.contains(&key))
        .collect();
    let [second, first] = &copies[..] else {
        panic!("two copies were sent: {copies:?}");
    };
    // Each is of an owner of its own, and the second gives back what the first may have been granted.
    // The number of the call follows the owner.
    let owner_of = |words: &[String]| words[words.len() - 2].clone();
    let owner = owner_of(first);
    assert!(owner_of(second) != owner && second.contains(&owner));
    guard.release().await.unwrap();
    // A network that had held it back lets it go.
    let words: Vec<&str> = first.iter().map(String::as_str).collect();
    let _: redis::Value = server.ask(&words).await.unwrap();
    assert!(
        is_held(&there).await,
        "nobody has it, and the server thinks so"
    );
    // Nothing but the lease of the copy frees it now, which is 30 s.
    let late = Lateness::of(Duration::ZERO);
    take(&there).await.release().await.unwrap();
    late.at_most(LEASE * 3).await;
}

#[tokio::test]
async fn a_grant_whose_answer_never_comes_is_given_back_long_before_its_lease_ends() {
    for is_claim in [false, true] {
        let server = RedisServer::start().await;
        let proxy = Proxy::to(server.address()).await;
        let connect = async |url: &str| {
            let long = RedisBackend::builder(url).quarantine(Duration::ZERO);
            LockProvider::new(long.connect().await.unwrap())
        };
        let here = connect(&proxy.url(&server.url())).await;
        let there = connect(&server.url()).await;
        // So that the server knows the script.
        take(&here).await.release().await.unwrap();
        proxy.swallow(Direction::ToClient);
        let error = match is_claim {
            true => here.claim([NAME], 1).await.unwrap_err(),
            false => try_once(&here).await.unwrap_err(),
        };
        assert!(error.is_unavailable(), "{error}");
        assert!(is_held(&there).await, "nobody has heard of the grant");
        proxy.heal().await;
        let late = Lateness::of(Duration::ZERO);
        take(&there).await.release().await.unwrap();
        late.at_most(LEASE * 3).await;
    }
}

#[tokio::test]
async fn an_acquire_that_is_dropped_at_any_time_leaves_no_lock_behind() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let here = client(&proxy.url(&server.url())).await;
    let there = client(&server.url()).await;
    proxy.delay(Duration::from_millis(5));
    for is_held in [false, true] {
        for after in 0..25 {
            let holder = match is_held {
                true => Some(take(&there).await),
                false => None,
            };
            let here = here.clone();
            let asking = tokio::spawn(async move { drop(take(&here).await) });
            sleep(Duration::from_millis(after)).await;
            asking.abort();
            let _ = asking.await;
            drop(holder);
            take(&there).await.release().await.unwrap();
        }
    }
    let key = redis_key("", &NAME.parse().unwrap());
    eventually("nothing is left", async || {
        server.ask::<u32>(&["EXISTS", &key]).await.unwrap() == 0
    })
    .await;
}

#[tokio::test]
async fn scripts_that_were_flushed_are_loaded_again() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let guard = take(&here).await;
    for _ in 0..5 {
        let () = server.ask(&["SCRIPT", "FLUSH"]).await.unwrap();
        sleep(LEASE / 2).await;
        assert!(guard.is_valid());
        let other = here.lock("order:process:7").unwrap();
        other
            .acquire(PATIENCE)
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
    }
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_deleted_is_a_loss_within_a_heartbeat() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let guard = take(&here).await;
    let key = redis_key("", &NAME.parse().unwrap());
    assert_eq!(server.ask::<u32>(&["DEL", &key]).await.unwrap(), 1);
    // By the next renewal, and not by the end of the lease.
    assert_eq!(guard.lost().await, LossReason::Revoked);
    let guard = take(&here).await;
    let () = server.ask(&["FLUSHALL"]).await.unwrap();
    assert_eq!(guard.lost().await, LossReason::Revoked);
    assert!(guard.release().await.unwrap_err().is_lost());
}

#[tokio::test]
async fn a_server_that_was_demoted_is_unavailable_and_not_contended() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let guard = take(&here).await;
    let () = server.ask(&["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
    let error = here
        .lock("order:process:7")
        .unwrap()
        .try_acquire(Duration::ZERO)
        .await;
    assert!(error.unwrap_err().is_unavailable());
    assert_eq!(guard.lost().await, LossReason::ReadOnly);
    let waiting = tokio::spawn({
        let here = here.clone();
        async move {
            here.lock("order:process:7")
                .unwrap()
                .acquire(PATIENCE)
                .await
        }
    });
    sleep(LEASE / 4).await;
    let () = server.ask(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    // Retried inside the deadline.
    waiting.await.unwrap().unwrap().release().await.unwrap();
}

/// While nothing is held, nothing but the acquires tells of it.
#[tokio::test]
async fn the_connection_to_a_server_that_was_demoted_is_left() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    take(&here).await.release().await.unwrap();
    let scripting = async || -> Vec<String> {
        let list: String = server.ask(&["CLIENT", "LIST"]).await.unwrap();
        let scripting = list.lines().filter(|line| line.contains("cmd=evalsha"));
        let ids = scripting.map(|line| line.split(' ').next().unwrap().to_owned());
        ids.collect()
    };
    let used = scripting().await.pop().unwrap();
    let () = server.ask(&["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
    let error = try_once(&here).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    eventually("it is left", async || !scripting().await.contains(&used)).await;
}

#[tokio::test]
async fn a_lock_whose_grant_was_not_heard_is_given_back_when_its_copy_is_refused() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let connect = async |url: &str| {
        let long = RedisBackend::builder(url).quarantine(Duration::ZERO);
        LockProvider::new(long.connect().await.unwrap())
    };
    let here = connect(&proxy.url(&server.url())).await;
    // So that the server knows the script.
    take(&here).await.release().await.unwrap();
    proxy.swallow(Direction::ToClient);
    let acquiring = tokio::spawn(async move { try_once(&here).await });
    let key = redis_key("", &NAME.parse().unwrap());
    let is_there = async || server.ask::<u32>(&["EXISTS", &key]).await.unwrap() == 1;
    eventually("it is granted", is_there).await;
    let replicas = async |wanted| {
        let set = ["CONFIG", "SET", "min-replicas-to-write", wanted];
        server.ask::<()>(&set).await.unwrap();
    };
    replicas("1").await;
    // Also an answer that has not come as far as the proxy is lost.
    proxy.reset();
    proxy.heal().await;
    let error = acquiring.await.unwrap().unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(is_there().await, "the server refuses to write");
    replicas("0").await;
    let late = Lateness::of(Duration::ZERO);
    eventually("it is given back", async || !is_there().await).await;
    late.at_most(LEASE * 3).await;
}

#[tokio::test]
async fn a_full_memory_is_unavailable_and_leaves_what_is_held_alone() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&here).await;
    let () = server
        .ask(&["CONFIG", "SET", "maxmemory", "1"])
        .await
        .unwrap();
    let error = try_once(&there).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    sleep(2 * LEASE).await;
    assert!(guard.is_valid());
    guard.release().await.unwrap();
    let () = server
        .ask(&["CONFIG", "SET", "maxmemory", "0"])
        .await
        .unwrap();
    take(&there).await.release().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_busy_with_a_script_is_unavailable_and_then_serves() {
    let server = RedisServer::with(&[("busy-reply-threshold", "50")]).await;
    let here = client(&server.url()).await;
    let mut looking = server.connection().await;
    let busy = tokio::spawn(async move {
        // For longer than a test lasts: it is killed below.
        let script = "local t = redis.call('TIME')[1] + 600 \
                      while tonumber(redis.call('TIME')[1]) < t do end return 1";
        let mut eval = ::redis::cmd("EVAL");
        eval.arg(script).arg(0);
        let _ = eval.query_async::<()>(&mut looking).await;
    });
    eventually("the server is busy", async || {
        let pong = server.ask::<String>(&["PING"]).await;
        pong.is_err_and(|error| error.code() == Some("BUSY"))
    })
    .await;
    let error = try_once(&here).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("`SCRIPT KILL`"), "{error}");
    let waiting = tokio::spawn(async move { take(&here).await });
    server.ask::<()>(&["SCRIPT", "KILL"]).await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    busy.await.unwrap();
}
