//! A fleet in which some instances run a version that does not yet say which instance it is.

use lock_core::{LockName, LockProvider};
use lock_tests::servers::RedisServer;
use lock_tests::{Log, eventually, redis_key};
use redis::Value;
use tokio::time::sleep;

use crate::support::{LEASE, NAME, PATIENCE, calls_of, client, is_held, take, token};

/// What such a version acquires and releases with.
const EXCHANGE: &str = include_str!("earlier_exchange.lua");

/// An instance of it, by the calls that it makes.
pub(crate) struct Earlier<'a> {
    server: &'a RedisServer,
    key: String,
    owner: String,
}

impl<'a> Earlier<'a> {
    pub(crate) fn of(server: &'a RedisServer) -> Self {
        Self {
            server,
            key: redis_key("", &NAME.parse::<LockName>().unwrap()),
            owner: format!("{:032x} ", 0xab),
        }
    }

    /// Makes one call, and gives what it says after the time, what is left of the quarantine, and the token.
    pub(crate) async fn call(&self, releases: &str) -> (i64, Vec<Value>) {
        let known: Vec<String> = self.server.ask(&["KEYS", "*server-v1*"]).await.unwrap();
        let [server_key] = &known[..] else {
            panic!("{known:?}");
        };
        let lease = LEASE.as_millis().to_string();
        let call = [
            "EVAL",
            EXCHANGE,
            "2",
            server_key,
            &self.key,
            "9007199254740992",
            &lease,
            "0",
            "0",
            "PUBLISH",
            releases,
            "0",
            "0",
            "1",
            "",
            "0",
            &self.owner,
            "7",
        ];
        let mut answer: Vec<Value> = self.server.ask(&call).await.unwrap();
        let said = answer.split_off(3);
        let Value::Int(token) = answer[2] else {
            panic!("{answer:?}");
        };
        (token, said)
    }

    pub(crate) async fn value(&self) -> String {
        self.server.ask(&["GET", &self.key]).await.unwrap()
    }
}

async fn instance(client: &LockProvider) -> Option<Option<String>> {
    let holder = client.holder(NAME).await.unwrap()?;
    Some(holder.instance().map(str::to_owned))
}

#[tokio::test]
async fn an_earlier_version_is_refused_a_lock_and_leaves_it_to_its_holder() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&here).await;
    let earlier = Earlier::of(&server);
    let before = earlier.value().await;
    let (_, said) = earlier.call("0").await;
    // Refused, for as long as the lease goes on, and not as the lock of another program.
    let [Value::Int(1), Value::Int(wait)] = said[..] else {
        panic!("{said:?}");
    };
    assert!((-2_000..0).contains(&wait), "{wait}");
    assert_eq!(earlier.value().await, before[..64].replace(' ', "!"));
    assert_eq!(instance(&there).await, Some(None));
    // It is renewed, refused to others, issued tokens and released as before.
    sleep(2 * LEASE).await;
    assert!(guard.is_valid() && is_held(&there).await);
    let held = token(&guard).await;
    let published = calls_of(&server, "publish").await;
    guard.release().await.unwrap();
    let woken = calls_of(&server, "publish").await - published;
    assert_eq!(woken, 1, "who waits is woken");
    let (token, said) = earlier.call("0").await;
    assert!(said.is_empty(), "{said:?}");
    assert!(u64::try_from(token).unwrap() > held);
}

#[tokio::test]
async fn a_lock_of_an_earlier_version_is_refused_and_waited_for() {
    let log = Log::of_process();
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    // Writes the key of the server.
    take(&here).await.release().await.unwrap();
    let earlier = Earlier::of(&server);
    let (held, said) = earlier.call("0").await;
    assert!(said.is_empty(), "{said:?}");
    let owner = earlier.owner.trim();
    assert_eq!(earlier.value().await, format!("{owner} {held}"));
    assert_eq!(instance(&there).await, Some(None));
    let lock = here.lock(NAME).unwrap();
    let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    eventually("it leaves its mark", async || {
        earlier.value().await == format!("{owner}!{held}")
    })
    .await;
    assert!(!log.text().contains("another program has written"));
    // The mark is that of a try, which is made while another connection subscribes.
    eventually("it listens", async || {
        let channel: (String, u32) = server
            .ask(&["PUBSUB", "NUMSUB", &earlier.key])
            .await
            .unwrap();
        channel.1 == 1
    })
    .await;
    let (_, said) = earlier.call("1").await;
    let [Value::Int(1), Value::Int(heard)] = said[..] else {
        panic!("{said:?}");
    };
    assert!(heard > 1, "who waits is woken");
    let guard = waiting.await.unwrap().unwrap();
    assert!(token(&guard).await > u64::try_from(held).unwrap());
    let us = format!(":{}", std::process::id());
    assert!(instance(&there).await.flatten().unwrap().ends_with(&us));
}
