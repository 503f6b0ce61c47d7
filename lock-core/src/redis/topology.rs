//! Which node has which bucket.

use std::collections::BTreeSet;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionAddr, ConnectionInfo, Value, cmd, from_redis_value, pipe};

use super::address::address;
use super::connect::ask;
use super::key::BUCKETS;
use super::rights::Asked;
use super::settings::Settings;
use super::shared::Shared;
use crate::LockError;

/// The nodes, and which of them has which bucket. A single server has all.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    pub(super) is_cluster: bool,
    pub(super) nodes: Vec<ConnectionInfo>,
    /// An index of `nodes` for each bucket.
    pub(super) of_bucket: Vec<usize>,
    /// All that have slots of a cluster, whether a bucket is among them or not.
    pub(super) masters: Vec<ConnectionInfo>,
    /// What the members of a cluster call each other.
    pub(super) members: BTreeSet<String>,
}

impl Topology {
    pub(super) fn single(info: ConnectionInfo) -> Self {
        Self {
            is_cluster: false,
            nodes: vec![info],
            of_bucket: vec![0; BUCKETS],
            masters: Vec::new(),
            members: BTreeSet::new(),
        }
    }

    /// Asks a node of a cluster.
    pub(super) async fn of_cluster(
        connection: &mut MultiplexedConnection,
        node: &ConnectionInfo,
        shared: &Shared,
    ) -> Result<Self, LockError> {
        let settings = &shared.settings;
        let within = settings.connect_timeout();
        let mut slots = cmd("CLUSTER");
        slots.arg("SLOTS");
        let ranges = ask(connection, &slots, settings, within).await?;
        let mut members = BTreeSet::new();
        let ranges = ranges_of(ranges, node, &mut members)?;
        // They are the same in every cluster.
        let slots = match shared.slots.get() {
            Some(slots) => slots,
            None => {
                let slots = slots_of_buckets(connection, settings).await?;
                shared.slots.get_or_init(|| slots)
            }
        };
        let mut nodes: Vec<ConnectionInfo> = Vec::new();
        let mut of_bucket = Vec::with_capacity(BUCKETS);
        for slot in slots {
            let owner = ranges
                .iter()
                .find(|range| (range.first..=range.last).contains(slot))
                .ok_or_else(|| {
                    LockError::unavailable("the Redis cluster does not serve all slots")
                })?;
            let known = nodes.iter().position(|node| node.addr() == &owner.address);
            of_bucket.push(known.unwrap_or_else(|| {
                nodes.push(node.clone().set_addr(owner.address.clone()));
                nodes.len() - 1
            }));
        }
        let mut masters: Vec<ConnectionInfo> = Vec::new();
        for range in ranges {
            if masters.iter().all(|known| known.addr() != &range.address) {
                masters.push(node.clone().set_addr(range.address));
            }
        }
        Ok(Self {
            is_cluster: true,
            nodes,
            of_bucket,
            masters,
            members,
        })
    }

    /// How many kinds of keys there are that cannot share a call: one, or in a cluster the buckets.
    pub(super) fn lanes(&self) -> usize {
        match self.is_cluster {
            true => self.of_bucket.len(),
            false => 1,
        }
    }

    /// Whether there is a bucket at this node; the places of nodes that are gone are kept for others.
    pub(super) fn has(&self, node: usize) -> bool {
        self.of_bucket.contains(&node)
    }

    /// Whether they are of the same cluster.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        !self.members.is_disjoint(&other.members)
    }
}

struct Range {
    first: u16,
    last: u16,
    address: ConnectionAddr,
}

/// Notes the members that have them, replicas as well.
fn ranges_of(
    answer: Value,
    asked: &ConnectionInfo,
    members: &mut BTreeSet<String>,
) -> Result<Vec<Range>, LockError> {
    let nonsense = || {
        LockError::unavailable("the Redis cluster returned an unexpected reply to CLUSTER SLOTS")
    };
    let Value::Array(ranges) = answer else {
        return Err(nonsense());
    };
    let range = |value: Value| {
        let Value::Array(parts) = value else {
            return Err(nonsense());
        };
        let mut parts = parts.into_iter();
        let mut next = || parts.next().ok_or_else(nonsense);
        let (first, last, master) = (next()?, next()?, next()?);
        let number = |value| from_redis_value::<u16>(value).map_err(|_| nonsense());
        let Value::Array(master) = master else {
            return Err(nonsense());
        };
        let replicas = parts.filter_map(|replica| match replica {
            Value::Array(replica) => Some(replica),
            _ => None,
        });
        // Address, port, identity.
        let named =
            |member: Vec<Value>| from_redis_value::<String>(member.into_iter().nth(2)?).ok();
        members.extend(replicas.chain([master.clone()]).filter_map(named));
        let mut master = master.into_iter();
        // Unknown to the node itself, it is the address that we have asked at.
        let host: Option<String> =
            from_redis_value(master.next().unwrap_or(Value::Nil)).map_err(|_| nonsense())?;
        let host = host.filter(|host| !host.is_empty() && host != "?");
        let port = number(master.next().ok_or_else(nonsense)?)?;
        Ok(Range {
            first: number(first)?,
            last: number(last)?,
            address: address(asked.addr(), host, port),
        })
    };
    ranges.into_iter().map(range).collect()
}

/// What the members of its cluster call a node.
pub(super) async fn id_of_member(
    connection: &mut MultiplexedConnection,
    settings: &Settings,
) -> Result<String, LockError> {
    let mut question = cmd("CLUSTER");
    question.arg("MYID");
    let within = settings.connect_timeout();
    let id = ask(connection, &question, settings, within).await?;
    from_redis_value(id).map_err(|error| {
        LockError::unavailable("the Redis cluster has no name for a node").with_source(error)
    })
}

/// The slot of each bucket, as the server computes it.
async fn slots_of_buckets(
    connection: &mut MultiplexedConnection,
    settings: &Settings,
) -> Result<Vec<u16>, LockError> {
    let mut questions = pipe();
    for bucket in 0..BUCKETS {
        questions
            .cmd("CLUSTER")
            .arg("KEYSLOT")
            .arg(format!("lock:{{b{bucket}}}:"));
    }
    let asking = questions.query_async(connection);
    match tokio::time::timeout(settings.connect_timeout(), asking).await {
        Ok(slots) => slots.map_err(|error| {
            let asked = Asked {
                settings,
                is_cluster: Some(true),
                command: "CLUSTER KEYSLOT",
            };
            asked.failed(error, "the Redis cluster did not tell its slots")
        }),
        Err(_) => Err(LockError::unanswered()),
    }
}
