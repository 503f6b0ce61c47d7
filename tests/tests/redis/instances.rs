//! Who holds a lock, as the value of its key says.

use std::time::{Duration, SystemTime};

use lock_core::LockProvider;
use lock_core::redis::RedisBackend;
use lock_tests::redis_key;
use lock_tests::servers::{RedisServer, Server};
use tokio::time::sleep;

use crate::support::{LEASE, NAME, PATIENCE, client, take};

async fn named(server: &RedisServer, instance: &str) -> LockProvider {
    let backend = RedisBackend::builder(&server.url())
        .lease(LEASE)
        .quarantine(Duration::ZERO)
        .instance(instance);
    LockProvider::new(backend.connect().await.unwrap())
}

async fn instance(client: &LockProvider) -> Option<String> {
    let holder = client.holder(NAME).await.unwrap()?;
    Some(holder.instance().unwrap_or("unnamed").to_owned())
}

#[tokio::test]
async fn instances_of_one_server_are_told_apart() {
    let server = RedisServer::start().await;
    // As long as it can be, with what means something in Lua and in a lock.
    let longest = format!("http://[fe80::1%25eth0]:8080/{}!%5", "x".repeat(14));
    assert_eq!(longest.len(), 46);
    let (one, other) = (
        named(&server, "web-1").await,
        named(&server, &longest).await,
    );
    for (holding, asking, expected) in [(&one, &other, "web-1"), (&other, &one, &*longest)] {
        let guard = take(holding).await;
        assert_eq!(instance(asking).await.as_deref(), Some(expected));
        // One that waits leaves its mark, and one that only tries does not.
        assert!(lock_tests::is_held(asking, NAME).await);
        let lock = asking.lock(NAME).unwrap();
        let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await });
        sleep(2 * LEASE).await;
        assert_eq!(instance(asking).await.as_deref(), Some(expected));
        assert_eq!(instance(holding).await.as_deref(), Some(expected));
        guard.release().await.unwrap();
        drop(waiting.await.unwrap().unwrap());
    }
}

/// Which is an hour ahead, and ten minutes more after it took over from another.
#[tokio::test]
async fn since_when_a_lock_is_held_is_told_by_our_clock_and_not_by_that_of_the_server() {
    let master = RedisServer::options().own_clock().start().await;
    master.put_clock(3600);
    let first = client(&master.url()).await;
    take(&first).await.release().await.unwrap();
    let replica = master.replica().await;
    replica.put_clock(3600);
    replica.promote().await;
    for server in [&master, &replica] {
        let here = client(&server.url()).await;
        let before = SystemTime::now();
        let guard = take(&here).await;
        sleep(Duration::from_millis(200)).await;
        let holder = here.holder(NAME).await.unwrap().unwrap();
        let since = holder.since().unwrap();
        let apart = Duration::from_millis(100);
        assert!(since + apart >= before, "{since:?} is before {before:?}");
        assert!(since + apart <= SystemTime::now(), "{since:?}");
        guard.release().await.unwrap();
    }
}

#[tokio::test]
async fn a_key_of_another_program_is_held_by_no_instance() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let key = redis_key("", &NAME.parse().unwrap());
    for command in [
        &["SET", &key, "theirs"][..],
        &["SET", &key, ""],
        &["RPUSH", &key, "a"],
        &["SET", &key, &"x".repeat(100_000), "PX", "60000"],
    ] {
        let _: redis::Value = server.ask(&["DEL", &key]).await.unwrap();
        let _: redis::Value = server.ask(command).await.unwrap();
        assert_eq!(instance(&here).await.as_deref(), Some("unnamed"));
    }
    let _: redis::Value = server.ask(&["DEL", &key]).await.unwrap();
    assert_eq!(instance(&here).await, None);
}

#[tokio::test]
async fn what_no_instance_can_be_called_is_refused() {
    let builder = RedisBackend::builder("redis://localhost").instance("web 1");
    let error = builder.connect().await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(
        error.to_string().contains("the instance: it has a blank"),
        "{error}"
    );
}
