//! What is listed beside the keys of other programs, which can be of any form.

use std::collections::BTreeMap;
use std::time::Duration;

use lock_core::{LockMode, LockProvider};
use lock_tests::redis_key;
use lock_tests::servers::RedisServer;

use crate::support::{NAME, client, take, unhurried};

/// Of no name that is locked here.
const STEM: &str = "hdvvms5dzyqfslkmwblkpoqawzkxddkg";

/// Members and values, each of so many bytes.
const HUGE: &str = "10000000";

async fn run(server: &RedisServer, command: &[&[u8]]) {
    let mut connection = server.connection().await;
    let mut cmd = redis::cmd(str::from_utf8(command[0]).unwrap());
    cmd.arg(&command[1..]);
    let _: redis::Value = cmd.query_async(&mut connection).await.unwrap();
}

/// Runs this in the server, where it takes no time to send what is large.
async fn eval(server: &RedisServer, code: &str, arguments: &[&str]) {
    let command = [&["EVAL", code, "0"], arguments].concat();
    let _: redis::Value = server.ask(&command).await.unwrap();
}

/// How many of each mode are listed, by their keys.
async fn listed(client: &LockProvider) -> BTreeMap<String, usize> {
    let listing = client.list(10_000).await.unwrap();
    let mut keys = BTreeMap::new();
    for lock in listing.locks() {
        *keys.entry(lock.key().to_owned()).or_default() += 1;
    }
    keys
}

/// How much the server has sent.
async fn sent(server: &RedisServer) -> u64 {
    let stats: String = server.ask(&["INFO", "stats"]).await.unwrap();
    let mut lines = stats.lines();
    let sent = lines.find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    sent.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn keys_that_are_not_of_locks_are_not_listed_and_not_read() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let guard = take(&here).await;
    let ours = redis_key("", guard.name());
    for key in [
        format!("lock:{{b1}}:v1-{STEM}x").into_bytes(),
        format!("lock:{{b256}}:v1-{STEM}").into_bytes(),
        format!("lock:{{b1}}:v1-{}", STEM.to_uppercase()).into_bytes(),
        format!("lock:{{b1}}:v1-\u{1b}[31m{}", &STEM[5..]).into_bytes(),
        [b"lock:{b1}:v1-\xff\xfe", &STEM.as_bytes()[2..]].concat(),
        [b"lock:{b\xff}:v1-", STEM.as_bytes()].concat(),
        b"lock:{b1}:v1-".to_vec(),
    ] {
        run(&server, &[b"SET", &key, b"x"]).await;
    }
    // As long as a name can be.
    let long =
        "redis.call('SET', 'lock:{b' .. string.rep('1', ARGV[1]) .. '}:v1-' .. ARGV[2], 'x')";
    eval(&server, long, &[HUGE, STEM]).await;
    let other = format!("lock:{{b1}}:v1-{STEM}");
    run(&server, &[b"RPUSH", other.as_bytes(), b"a"]).await;
    let before = sent(&server).await;
    assert_eq!(listed(&here).await, BTreeMap::from([(ours, 1)]));
    let sent = sent(&server).await - before;
    assert!(sent < 100_000, "{sent} bytes");
    guard.release().await.unwrap();
}

#[tokio::test]
async fn what_others_put_under_the_key_of_a_lock_is_read_as_far_as_a_lock_is_long() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    take(&here).await.release().await.unwrap();
    let key = redis_key("", &NAME.parse().unwrap());
    let huge = "redis.call('SET', ARGV[2], string.rep('x', ARGV[1]))";
    eval(&server, huge, &[HUGE, &key]).await;
    let empty = format!("lock:{{b1}}:v1-{STEM}");
    run(&server, &[b"SET", empty.as_bytes(), b""]).await;
    let before = sent(&server).await;
    let listing = here.list(10).await.unwrap();
    let sent = sent(&server).await - before;
    assert!(sent < 100_000, "{sent} bytes");
    // They keep the lock closed, as one that is held.
    assert_eq!(listing.locks().len(), 2);
    for lock in listing.locks() {
        assert_eq!(lock.holder().instance(), None);
        assert_eq!(lock.holder().since(), None);
    }
    for key in [&key, &empty] {
        run(&server, &[b"DEL", key.as_bytes()]).await;
    }
    assert!(listed(&here).await.is_empty());
}

#[tokio::test]
async fn members_that_others_put_beside_readers_are_bounded_and_name_none() {
    let server = RedisServer::start().await;
    // With a lease that outlasts what keeps the server busy here.
    let here = unhurried(&server.url()).await;
    let reader = here.lock(NAME).unwrap().shared();
    let guard = reader.acquire(Duration::ZERO).await.unwrap();
    let key = redis_key("", guard.name());
    let set = format!("{key}:readers");
    let far = "8000000000000000";
    // Long ones, one that is no text, some that escape, and a million.
    let odd = "redis.call('ZADD', ARGV[2], ARGV[3], string.rep('f', ARGV[1]), ARGV[3], '\\255\\254', \
         ARGV[3], string.rep('a', 32) .. '&\\27[31m', ARGV[3], '\\27]0;x\\7')";
    eval(&server, odd, &[HUGE, &set, far]).await;
    let many = "for i = 1, 10 do local a = {} \
         for j = 1, 1000 do a[2 * j - 1], a[2 * j] = ARGV[3], ARGV[1] .. '-' .. i .. '-' .. j end \
         redis.call('ZADD', ARGV[2], unpack(a)) end";
    // In steps, of which none keeps the server busy for long.
    for step in 0..100 {
        eval(&server, many, &[&step.to_string(), &set, far]).await;
    }
    let before = sent(&server).await;
    let listing = here.list(10).await.unwrap();
    let sent = sent(&server).await - before;
    assert!(sent < 100_000, "{sent} bytes");
    assert!(!listing.locks().is_empty());
    for lock in listing.locks() {
        assert_eq!(
            (lock.key(), lock.holder().mode()),
            (&*key, LockMode::Shared)
        );
        let us = format!(":{}", std::process::id());
        let instance = lock.holder().instance();
        assert!(
            instance.is_none_or(|instance| instance.ends_with(&us)),
            "{instance:?}"
        );
    }
    assert!(
        here.holder(NAME)
            .await
            .unwrap()
            .unwrap()
            .instance()
            .is_none()
    );
    run(&server, &[b"UNLINK", set.as_bytes()]).await;
    drop(guard);
}

/// It uses a connection of its own, and none stays.
#[tokio::test]
async fn a_look_leaves_neither_a_key_nor_a_connection_behind() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let guard = take(&here).await;
    let connections = async || {
        let list: String = server.ask(&["CLIENT", "LIST"]).await.unwrap();
        list.lines().count()
    };
    let keys = async || server.ask::<u64>(&["DBSIZE"]).await.unwrap();
    let before = (connections().await, keys().await);
    for _ in 0..20 {
        assert_eq!(here.list(10).await.unwrap().locks().len(), 1);
    }
    lock_tests::eventually("it is as before", async || {
        (connections().await, keys().await) == before
    })
    .await;
    guard.release().await.unwrap();
}
