//! A Redis master with replicas and Sentinels under stress: what takes another server's place.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lock_core::LockName;
use lock_core::redis::RedisBackend;

use super::faults::{Fault, Subject, common};
use super::fleet::Fleet;
use super::redis::{LEASE, Nodes, left_over, orders};
use crate::checker::FaultRule;
use crate::servers::{RedisSentinels, Server};
use crate::{RedisStore, Store};

/// Servers whose clients ask Sentinels for the master, and keep its quarantine.
#[derive(Debug)]
pub struct ChaosRedisSentinels(Arc<RedisSentinels>);

impl Store for ChaosRedisSentinels {
    type Backend = RedisBackend;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[];
    const LEASE: Option<Duration> = RedisStore::LEASE;
    const NOTICED_WITHIN: Duration = RedisStore::NOTICED_WITHIN;
    const GRANTED_AFTER_A_KILL: Duration = RedisStore::GRANTED_AFTER_A_KILL;

    async fn open() -> Self {
        Self(Arc::new(RedisSentinels::start().await))
    }

    async fn backend(&self) -> RedisBackend {
        let backend = RedisStore::builder(&self.0.url()).connect();
        backend.await.unwrap()
    }

    async fn lose(&self, name: &LockName) {
        let key = crate::redis_key("", name);
        let deleted: u32 = self.0.master().await.ask(&["DEL", &key]).await.unwrap();
        assert_eq!(deleted, 1, "a lock that is to be lost is held");
    }

    async fn lose_all(&self) {
        let () = self.0.master().await.ask(&["FLUSHALL"]).await.unwrap();
    }

    async fn open_connections(&self) -> usize {
        let master = self.0.master().await;
        let list: String = master.ask(&["CLIENT", "LIST"]).await.unwrap();
        list.lines().count()
    }

    fn address(&self) -> Option<String> {
        Some(RedisStore::address_of(&self.0.url(), LEASE))
    }
}

impl Subject for ChaosRedisSentinels {
    fn faults(&self) -> Vec<Box<dyn Fault>> {
        let mut faults = common::<Self>();
        let nodes = Nodes::Sentinels(Arc::clone(&self.0));
        let of_servers = orders(&nodes);
        faults.extend(of_servers.filter(|fault| fault.name() == "kill-clients"));
        for how in [How::Ordered, How::Killed, How::Frozen] {
            let set = Arc::clone(&self.0);
            faults.push(Box::new(FailOver { set, how }));
        }
        faults
    }

    async fn left_over(&self) -> Vec<String> {
        left_over(slice::from_ref(self.0.master().await)).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// By an administrator: the former master lives on, and is one for some seconds.
    Ordered,
    /// It is killed, and starts again empty, as a master, when another has taken its place.
    Killed,
    /// It stands still, and goes on as a master when another has taken its place.
    Frozen,
}

/// Another server takes the place of the master. What it does not have is lost; no other is granted it
/// before its holder knows.
#[derive(Debug)]
struct FailOver {
    set: Arc<RedisSentinels>,
    how: How,
}

#[async_trait]
impl Fault for FailOver {
    fn name(&self) -> &'static str {
        match self.how {
            How::Ordered => "fail-over",
            How::Killed => "kill-master",
            How::Frozen => "freeze-master",
        }
    }

    fn rule(&self) -> FaultRule {
        FaultRule::harmless().may_cost_locks()
    }

    async fn inject(&self, fleet: &mut Fleet) {
        self.set.until_replicated().await;
        let former = self.set.master().await;
        let broken = fleet.begin_for_all(self.name());
        match self.how {
            How::Ordered => {
                self.set.fail_over().await;
                self.set.until_replaced(former).await;
            }
            How::Killed => {
                former.kill().await;
                self.set.until_replaced(former).await;
                former.restart().await;
            }
            How::Frozen => {
                former.freeze().await;
                self.set.until_replaced(former).await;
                former.thaw().await;
            }
        }
        broken.over();
    }
}
