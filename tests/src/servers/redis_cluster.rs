//! A Redis Cluster.

use futures_util::future::join_all;

use super::redis::RedisServer;
use crate::timing::eventually;

/// All slots of a cluster.
const SLOTS: usize = 16_384;

/// How long a member is silent until the others take it for dead, in milliseconds.
const NODE_TIMEOUT: &str = "1000";

/// Three masters that share the slots, without replicas.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts the members and joins them; returns when all of them say that the cluster works.
    pub async fn start() -> Self {
        let options = RedisServer::options()
            .cluster()
            .setting("cluster-node-timeout", NODE_TIMEOUT);
        let nodes = join_all((0..3).map(|_| options.clone().start())).await;
        let share = |member: usize| (SLOTS * member / nodes.len()).to_string();
        for (member, node) in nodes.iter().enumerate() {
            let (first, after) = (share(member), SLOTS * (member + 1) / nodes.len());
            let slots = ["CLUSTER", "ADDSLOTSRANGE", &first, &(after - 1).to_string()];
            let () = node.ask(&slots).await.unwrap();
            // Members that were founded apart would all claim the same.
            let epoch = ["CLUSTER", "SET-CONFIG-EPOCH", &(member + 1).to_string()];
            let () = node.ask(&epoch).await.unwrap();
        }
        for node in &nodes[1..] {
            let (address, bus) = (node.address(), node.bus().expect("it is a member"));
            let [host, port, bus] = [
                address.ip().to_string(),
                address.port().to_string(),
                bus.to_string(),
            ];
            let () = nodes[0]
                .ask(&["CLUSTER", "MEET", &host, &port, &bus])
                .await
                .unwrap();
        }
        for node in &nodes {
            eventually("the cluster works", || async {
                let info: String = node.ask(&["CLUSTER", "INFO"]).await.unwrap();
                let knows_all = info.contains(&format!("cluster_known_nodes:{}", nodes.len()));
                info.contains("cluster_state:ok") && knows_all
            })
            .await;
        }
        Self { nodes }
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
