//! A Redis Cluster.

use std::future::Future;

use futures_util::future::join_all;

use super::redis::{RedisOptions, RedisServer};
use crate::timing::eventually;

/// All slots of a cluster.
const SLOTS: usize = 16_384;

/// How long a member is silent until the others take it for dead, in milliseconds.
const NODE_TIMEOUT: &str = "1000";

/// Three masters that share the slots, without replicas unless they are added.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts the members and joins them; returns when all of them say that the cluster works.
    pub async fn start() -> Self {
        Self::of(RedisServer::options()).await
    }

    /// Of members that wait for each other as long as Redis does by default: where none of them dies, none is
    /// to be taken for dead on a busy machine.
    pub async fn patient() -> Self {
        Self::joined(RedisServer::options(), "15000").await
    }

    /// Of members with these options.
    pub async fn of(options: RedisOptions) -> Self {
        Self::joined(options, NODE_TIMEOUT).await
    }

    async fn joined(options: RedisOptions, node_timeout: &str) -> Self {
        let member = member(options, node_timeout);
        let nodes = join_all((0..3).map(|_| member.clone().start())).await;
        let share = |member: usize| (SLOTS * member / nodes.len()).to_string();
        for (member, node) in nodes.iter().enumerate() {
            let (first, after) = (share(member), SLOTS * (member + 1) / nodes.len());
            let slots = ["CLUSTER", "ADDSLOTSRANGE", &first, &(after - 1).to_string()];
            let () = node.ask(&slots).await.unwrap();
            // Members that were founded apart would all claim the same.
            let epoch = ["CLUSTER", "SET-CONFIG-EPOCH", &(member + 1).to_string()];
            let () = node.ask(&epoch).await.unwrap();
        }
        let cluster = Self { nodes };
        for node in &cluster.nodes[1..] {
            cluster.meet(node).await;
        }
        for node in &cluster.nodes {
            eventually("the cluster works", || async {
                let info: String = node.ask(&["CLUSTER", "INFO"]).await.unwrap();
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            })
            .await;
        }
        cluster
    }

    async fn meet(&self, node: &RedisServer) {
        let (address, bus) = (node.address(), node.bus().expect("it is a member"));
        let [host, port, bus] = [
            address.ip().to_string(),
            address.port().to_string(),
            bus.to_string(),
        ];
        let () = self.nodes[0]
            .ask(&["CLUSTER", "MEET", &host, &port, &bus])
            .await
            .unwrap();
    }

    /// Adds a replica of this master, which the others make a master when that is dead; returns when
    /// it is in step and the others know of it.
    pub async fn replica(&self, master: &RedisServer) -> RedisServer {
        let replica = member(RedisServer::options(), NODE_TIMEOUT).start().await;
        self.meet(&replica).await;
        let (of, id) = (id(master).await, id(&replica).await);
        eventually("it knows its master", || async {
            let nodes: String = replica.ask(&["CLUSTER", "NODES"]).await.unwrap();
            nodes.contains(&of)
        })
        .await;
        let () = replica.ask(&["CLUSTER", "REPLICATE", &of]).await.unwrap();
        for node in &self.nodes {
            eventually("the members know the replica", || async {
                let nodes: String = node.ask(&["CLUSTER", "NODES"]).await.unwrap();
                let mut lines = nodes.lines();
                lines.any(|line| line.starts_with(&id) && line.contains(&format!("slave {of}")))
            })
            .await;
        }
        eventually("the replica is in step", || async {
            let info: String = replica.ask(&["INFO", "replication"]).await.unwrap();
            info.contains("master_link_status:up")
        })
        .await;
        master.until_replicas_follow().await;
        replica
    }

    /// The master that has the slot of this key.
    pub async fn master_of(&self, key: &str) -> &RedisServer {
        for node in &self.nodes {
            match node.ask::<bool>(&["EXISTS", key]).await {
                Ok(_) => return node,
                Err(error) => assert_eq!(error.code(), Some("MOVED"), "{error}"),
            }
        }
        panic!("nobody has {key}");
    }

    /// Moves the slot of this key, with all that is in it. When the first of its keys was moved and
    /// the others were not, `meanwhile` is awaited.
    pub async fn move_slot(
        &self,
        key: &str,
        to: &RedisServer,
        meanwhile: impl Future<Output = ()>,
    ) {
        let from = self.master_of(key).await;
        self.move_slot_from(from, key, to, meanwhile).await;
    }

    /// The same from a master that need not be one of the first.
    pub async fn move_slot_from(
        &self,
        from: &RedisServer,
        key: &str,
        to: &RedisServer,
        meanwhile: impl Future<Output = ()>,
    ) {
        let slot: u16 = from.ask(&["CLUSTER", "KEYSLOT", key]).await.unwrap();
        let slot = slot.to_string();
        let (source, target) = (id(from).await, id(to).await);
        let set = async |node: &RedisServer, state: &str, other: &str| {
            let command = ["CLUSTER", "SETSLOT", &slot, state, other];
            node.ask::<()>(&command).await.unwrap();
        };
        set(to, "IMPORTING", &source).await;
        set(from, "MIGRATING", &target).await;
        let keys: Vec<String> = from
            .ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"])
            .await
            .unwrap();
        let (host, port) = (to.address().ip().to_string(), to.port().to_string());
        let mut meanwhile = Some(meanwhile);
        for key in &keys {
            let migrate = ["MIGRATE", &host, &port, key, "0", "5000"];
            let answer: String = from.ask(&migrate).await.unwrap();
            assert_eq!(answer, "OK");
            if let Some(meanwhile) = meanwhile.take() {
                meanwhile.await;
            }
        }
        for node in [to, from] {
            set(node, "NODE", &target).await;
        }
    }

    /// The members.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The connection strings of all members.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }
}

/// A server that can join.
fn member(options: RedisOptions, node_timeout: &str) -> RedisOptions {
    options
        .cluster()
        .setting("cluster-node-timeout", node_timeout)
}

/// What the members call it.
async fn id(node: &RedisServer) -> String {
    node.ask(&["CLUSTER", "MYID"]).await.unwrap()
}
