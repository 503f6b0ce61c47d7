//! Redis servers under stress: what their administrator and the network do, and what they forget.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lock_core::LockName;
use lock_core::redis::RedisBackend;
use tokio::time::sleep;

use super::faults::{Fault, Subject, beyond, common};
use super::fleet::Fleet;
use super::network::{Blackhole, LostReply, Reset};
use crate::checker::FaultRule;
use crate::servers::{Proxy, RedisCluster, RedisSentinels, RedisServer, Server};
use crate::{RedisClusterStore, RedisStore, Store};

pub(super) const LEASE: Duration = RedisStore::LEASE.unwrap();

/// Within which time the next renewal tells of a lock that the server does not know any more.
const NOTICED: Duration = RedisStore::NOTICED_WITHIN.saturating_add(Duration::from_millis(300));

/// Less than what is left of a lease just before it is renewed.
const STALL: Duration = Duration::from_millis(800);

/// A server whose clients come through a proxy, and keep its quarantine.
#[derive(Debug)]
pub struct ChaosRedis {
    store: RedisStore,
    proxy: Arc<Proxy>,
}

/// A cluster whose clients keep its quarantine.
#[derive(Debug)]
pub struct ChaosRedisCluster(RedisClusterStore);

impl Store for ChaosRedis {
    type Backend = RedisBackend;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[];
    const LEASE: Option<Duration> = RedisStore::LEASE;
    const NOTICED_WITHIN: Duration = RedisStore::NOTICED_WITHIN;
    const GRANTED_AFTER_A_KILL: Duration = RedisStore::GRANTED_AFTER_A_KILL;

    async fn open() -> Self {
        let store = RedisStore::open().await;
        let proxy = Arc::new(Proxy::to(store.server().address()).await);
        Self { store, proxy }
    }

    /// Not through the proxy.
    async fn backend(&self) -> RedisBackend {
        let backend = RedisStore::builder(&self.store.server().url()).connect();
        backend.await.unwrap()
    }

    async fn lose(&self, name: &LockName) {
        self.store.lose(name).await;
    }

    async fn lose_all(&self) {
        self.store.lose_all().await;
    }

    async fn open_connections(&self) -> usize {
        self.store.open_connections().await
    }

    fn address(&self) -> Option<String> {
        let url = self.proxy.url(&self.store.server().url());
        Some(RedisStore::address_of(&url, LEASE))
    }
}

impl Subject for ChaosRedis {
    fn faults(&self) -> Vec<Box<dyn Fault>> {
        let mut faults = common::<Self>();
        faults.extend(orders(&Nodes::One(Arc::clone(self.store.server()))));
        let server = || Arc::clone(self.store.server());
        faults.push(Box::new(Restart { server: server() }));
        for lasts in [STALL, beyond(Self::LEASE)] {
            let server = server();
            faults.push(Box::new(Stall { server, lasts }));
        }
        faults.push(Box::new(Blackhole::beyond::<Self>(&self.proxy)));
        faults.push(Box::new(Reset::of(&self.proxy)));
        faults.push(Box::new(LostReply::of(&self.proxy)));
        faults
    }

    async fn left_over(&self) -> Vec<String> {
        left_over(slice::from_ref(self.store.server())).await
    }
}

impl Store for ChaosRedisCluster {
    type Backend = RedisBackend;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[];
    const LEASE: Option<Duration> = RedisStore::LEASE;
    const NOTICED_WITHIN: Duration = RedisStore::NOTICED_WITHIN;
    const GRANTED_AFTER_A_KILL: Duration = RedisStore::GRANTED_AFTER_A_KILL;

    async fn open() -> Self {
        Self(RedisClusterStore::open().await)
    }

    async fn backend(&self) -> RedisBackend {
        let backend = RedisStore::builder(&self.0.cluster().urls()[0]).connect();
        backend.await.unwrap()
    }

    async fn lose(&self, name: &LockName) {
        self.0.lose(name).await;
    }

    async fn lose_all(&self) {
        self.0.lose_all().await;
    }

    async fn open_connections(&self) -> usize {
        self.0.open_connections().await
    }

    fn address(&self) -> Option<String> {
        Some(RedisStore::address_of(&self.0.cluster().urls()[0], LEASE))
    }
}

impl Subject for ChaosRedisCluster {
    fn faults(&self) -> Vec<Box<dyn Fault>> {
        let mut faults = common::<Self>();
        faults.extend(orders(&Nodes::Cluster(Arc::clone(self.0.cluster()))));
        faults
    }

    async fn left_over(&self) -> Vec<String> {
        left_over(self.0.cluster().nodes()).await
    }
}

/// Keys without an end, and locks without a holder.
pub(super) async fn left_over(nodes: &[RedisServer]) -> Vec<String> {
    let mut left = Vec::new();
    for node in nodes {
        let keys: Vec<String> = node.ask(&["KEYS", "*"]).await.unwrap();
        for key in keys {
            match node.ask::<i64>(&["PTTL", &key]).await.unwrap() {
                // It ended just now.
                -2 => {}
                -1 => left.push(format!("{key} without an end")),
                rest if key.contains(":v1-") => left.push(format!("{key} for {rest} ms")),
                _ => {}
            }
        }
    }
    left
}

/// All servers that there are.
#[derive(Clone, Debug)]
pub(super) enum Nodes {
    One(Arc<RedisServer>),
    Cluster(Arc<RedisCluster>),
    Sentinels(Arc<RedisSentinels>),
}

impl Nodes {
    fn all(&self) -> &[RedisServer] {
        match self {
            Self::One(server) => slice::from_ref(server),
            Self::Cluster(cluster) => cluster.nodes(),
            Self::Sentinels(set) => set.servers(),
        }
    }
}

/// What an administrator can order.
pub(super) fn orders(nodes: &Nodes) -> impl Iterator<Item = Box<dyn Fault>> {
    let orders = [
        Order {
            name: "kill-clients",
            rule: FaultRule::harmless(),
            commands: &[
                &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
                &["CLIENT", "KILL", "TYPE", "pubsub"],
            ],
            nodes: nodes.clone(),
        },
        Order {
            name: "flush-scripts",
            rule: FaultRule::harmless(),
            commands: &[&["SCRIPT", "FLUSH"]],
            nodes: nodes.clone(),
        },
        Order {
            name: "flush-all",
            rule: FaultRule::dropped_by_the_server(NOTICED),
            commands: &[&["FLUSHALL"]],
            nodes: nodes.clone(),
        },
    ];
    let boxed = |order| Box::new(order) as Box<dyn Fault>;
    orders.into_iter().map(boxed)
}

/// Commands to all servers, done in a moment.
#[derive(Debug)]
struct Order {
    name: &'static str,
    rule: FaultRule,
    commands: &'static [&'static [&'static str]],
    nodes: Nodes,
}

#[async_trait]
impl Fault for Order {
    fn name(&self) -> &'static str {
        self.name
    }

    fn rule(&self) -> FaultRule {
        self.rule
    }

    async fn inject(&self, fleet: &mut Fleet) {
        let broken = fleet.begin_for_all(self.name);
        for node in self.nodes.all() {
            for command in self.commands {
                let _: redis::Value = node.ask(command).await.unwrap();
            }
        }
        broken.over();
    }
}

/// The server is killed, and comes back empty. Holders hear of it with their next renewal, and
/// until their leases have ended no other is granted what they had.
#[derive(Debug)]
struct Restart {
    server: Arc<RedisServer>,
}

#[async_trait]
impl Fault for Restart {
    fn name(&self) -> &'static str {
        "restart"
    }

    fn rule(&self) -> FaultRule {
        FaultRule::harmless().costs_locks(NOTICED)
    }

    async fn inject(&self, fleet: &mut Fleet) {
        let broken = fleet.begin_for_all(self.name());
        self.server.restart().await;
        broken.over();
    }
}

/// The server stands still.
#[derive(Debug)]
struct Stall {
    server: Arc<RedisServer>,
    lasts: Duration,
}

impl Stall {
    fn is_short(&self) -> bool {
        self.lasts <= STALL
    }
}

#[async_trait]
impl Fault for Stall {
    fn name(&self) -> &'static str {
        if self.is_short() {
            "stall"
        } else {
            "long-stall"
        }
    }

    fn rule(&self) -> FaultRule {
        let rule = FaultRule::harmless();
        if self.is_short() {
            rule
        } else {
            // Before its end: the lease is over by then.
            rule.costs_locks(Duration::ZERO)
        }
    }

    async fn inject(&self, fleet: &mut Fleet) {
        let broken = fleet.begin_for_all(self.name());
        self.server.freeze().await;
        sleep(self.lasts).await;
        broken.over();
        self.server.thaw().await;
    }
}
