//! The servers: connections for commands, made when they are needed, and where a cluster has what.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionAddr, ConnectionInfo};
use tokio::sync::watch;
use tokio::time::Instant;

use super::locate::locate;
use super::looks::Looks;
use super::node::{Came, Node};
use super::{Done, Effects};
use crate::LockError;
use crate::redis::address::address;
use crate::redis::key::server_key;
use crate::redis::opened::{Opened, connect};
use crate::redis::scripts::Failure;
use crate::redis::shared::Shared;
use crate::redis::topology::Topology;
use crate::server::clock::Jump;
use crate::server::leased::Part;
use crate::server::link::{Link, LinkId};
use crate::server::protocol::{Effect, Sent};

/// The servers, and which of them has what.
pub(super) struct Nodes {
    shared: Arc<Shared>,
    nodes: Vec<Node>,
    lanes: Vec<NodeLane>,
    /// Counts the servers that were met.
    last_server: u64,
    topology: watch::Sender<Arc<Topology>>,
    looks: Looks,
}

/// Keys that can share a call: all of a server, or a bucket of a cluster.
pub(super) struct NodeLane {
    pub(super) server_key: String,
    /// In a cluster, that of its keys.
    pub(super) bucket: u8,
    pub(super) node: usize,
    /// The next call is to say that its clock jumped.
    pub(super) jumped: bool,
}

/// What is different after the cluster was asked.
pub(super) struct Moved {
    /// Places of nodes that have nothing any more.
    pub(super) left: Vec<usize>,
    /// Places that have other nodes.
    pub(super) replaced: Vec<usize>,
    pub(super) is_any: bool,
}

impl Nodes {
    /// Those that are known, without a connection yet.
    pub(super) fn new(shared: Arc<Shared>, topology: watch::Sender<Arc<Topology>>) -> Self {
        let layout = Arc::clone(&topology.borrow());
        let lane = |bucket: usize| {
            let tag = u8::try_from(bucket).unwrap_or_default();
            NodeLane {
                server_key: server_key(&shared.settings.namespace, tag),
                bucket: tag,
                node: layout.of_bucket[bucket],
                jumped: false,
            }
        };
        let nodes = layout.nodes.iter().cloned().enumerate();
        Self {
            lanes: (0..layout.lanes()).map(lane).collect(),
            nodes: nodes.map(|(place, info)| Node::new(place, info)).collect(),
            last_server: 0,
            topology,
            looks: Looks::new(),
            shared,
        }
    }

    pub(super) const fn lanes(&self) -> usize {
        self.lanes.len()
    }

    pub(super) const fn is_cluster(&self) -> bool {
        self.lanes.len() > 1
    }

    pub(super) fn lane_of(&self, bucket: u8) -> usize {
        usize::from(bucket) % self.lanes.len()
    }

    pub(super) fn lane(&self, lane: usize) -> &NodeLane {
        &self.lanes[lane]
    }

    pub(super) fn lane_mut(&mut self, lane: usize) -> &mut NodeLane {
        &mut self.lanes[lane]
    }

    /// All lanes of a node.
    pub(super) fn lanes_of(&self, node: usize) -> Vec<usize> {
        let lanes = self.lanes.iter().enumerate();
        let of_node = lanes.filter(|(_, lane)| lane.node == node);
        of_node.map(|(lane, _)| lane).collect()
    }

    /// One lane of each node that has any.
    pub(super) fn probed_lanes(&self) -> Vec<usize> {
        let of_node = |node| self.lanes.iter().position(|lane| lane.node == node);
        (0..self.nodes.len()).filter_map(of_node).collect()
    }

    pub(super) fn place_of(&self, info: &ConnectionInfo) -> Option<usize> {
        let is_it = |node: &Node| node.info.addr() == info.addr();
        self.nodes.iter().position(is_it)
    }

    pub(super) fn address(&self, node: usize) -> &ConnectionAddr {
        self.nodes[node].info.addr()
    }

    pub(super) fn run_id(&self, node: usize) -> &str {
        &self.nodes[node].run_id
    }

    /// Its present connection, or the last one.
    pub(super) fn link_id(&self, node: usize) -> LinkId {
        self.nodes[node].id
    }

    /// Whether the node is the server still that this connection was one to.
    pub(super) fn is_present(&self, link: LinkId) -> bool {
        self.nodes[link.node].id.server == link.server
    }

    pub(super) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].link.up().is_some()
    }

    pub(super) fn is_connecting(&self, node: usize) -> bool {
        matches!(self.nodes[node].link, Link::Connecting(()))
    }

    /// Nodes that are connected to.
    pub(super) fn connected(&self) -> Vec<(ConnectionInfo, MultiplexedConnection)> {
        let connected = self.nodes.iter().filter_map(|node| {
            let connection = node.link.up()?;
            Some((node.info.clone(), connection.clone()))
        });
        connected.collect()
    }

    /// The connection of a node; where there is none, one is asked for.
    pub(super) fn connection(
        &mut self,
        at: usize,
        effects: &mut Effects,
    ) -> Option<(MultiplexedConnection, LinkId)> {
        let node = &mut self.nodes[at];
        if let Some(connection) = node.link.up() {
            return Some((connection.clone(), node.id));
        }
        if !node.link.is_due() {
            return None;
        }
        node.link = Link::Connecting(());
        node.absent_since.get_or_insert_with(Instant::now);
        let (info, shared) = (node.info.clone(), Arc::clone(&self.shared));
        effects.push(Effect::call(async move {
            let result = Box::new(connect(&info, &shared).await);
            Done::Connected {
                node: at,
                address: info.addr().clone(),
                result,
            }
        }));
        None
    }

    /// When a connection to a node that is not there can be made again.
    pub(super) fn retry_at(&self, node: usize) -> Option<Instant> {
        self.nodes[node].link.retry_at()
    }

    /// Of the connection: see [`Owner`](crate::server::leased::Owner).
    pub(super) fn identity(&self, node: usize) -> u64 {
        self.nodes[node].identity
    }

    /// The server's time (microseconds) after which a request that is sent now is too late.
    pub(super) fn not_after(&self, sent: Sent, patience: Duration) -> u64 {
        (self.nodes[sent.link.node].clock).not_after(sent.at, patience)
    }

    /// A connection was made.
    pub(super) fn up(&mut self, node: usize, opened: Opened) -> Came {
        let margin = self.shared.settings.margin();
        let this = &mut self.nodes[node];
        let came = this.up(opened, self.last_server + 1, margin);
        if came.is_another {
            self.last_server += 1;
            self.shared.servers.set(node, &this.run_id);
        }
        came
    }

    /// None could be made; gives when it can be again.
    pub(super) fn down(&mut self, node: usize, error: &LockError) -> Instant {
        self.nodes[node].down(error)
    }

    /// The server of this node is at another address than before, as Sentinels say.
    pub(super) fn follow(&mut self, node: usize, info: &ConnectionInfo) {
        if self.nodes[node].info.addr() != info.addr() {
            self.nodes[node].info = info.clone();
            // For the second connection, which is to be one to the same server.
            let topology = Topology::single(info.clone());
            self.topology.send_replace(Arc::new(topology));
        }
    }

    /// Whether it is one of the servers that keep these locks: an address can become another's.
    pub(super) fn expected(&self, opened: Opened) -> Result<Opened, LockError> {
        let known = self.topology.borrow();
        match &opened.member {
            None if !known.is_cluster => Ok(opened),
            Some(id) if known.is_cluster && known.members.contains(id) => Ok(opened),
            _ => Err(LockError::unavailable(
                "the address of a Redis server leads to another that does not belong to it",
            )),
        }
    }

    /// The connection is left, and another can be made now.
    pub(super) fn disconnect(&mut self, node: usize) {
        self.nodes[node].link = Link::down();
    }

    /// A call over this connection was answered.
    pub(super) fn answered(&mut self, link: LinkId) {
        self.nodes[link.node].answered(link);
    }

    /// A call over this connection failed.
    pub(super) fn failed(&mut self, link: LinkId, failure: &Failure) {
        let is_single = !self.is_cluster();
        self.nodes[link.node].failed(link, failure, is_single);
    }

    /// Takes note of a server's time; of one that another has taken the place of, it says nothing.
    pub(super) fn saw_time(&mut self, sent: Sent, time: u64) -> Option<Jump> {
        if !self.is_present(sent.link) {
            return None;
        }
        let (received, margin) = (self.shared.clock.now(), self.shared.settings.margin());
        let clock = &mut self.nodes[sent.link.node].clock;
        clock.observe(sent.at, received, time, margin)
    }

    /// The clock of its server was put forward by then.
    pub(super) fn jumped(&mut self, node: usize, now: Duration) {
        self.nodes[node].jumped_at = Some(now);
    }

    /// Whether it was sent before the clock of its server was known to have been put forward.
    pub(super) fn was_before_jump(&self, sent: Sent) -> bool {
        let jumped_at = self.nodes[sent.link.node].jumped_at;
        self.is_present(sent.link) && jumped_at.is_some_and(|jumped_at| sent.at <= jumped_at)
    }

    /// Leases are renewed at these lanes.
    pub(super) fn renewing(&mut self, is_renewed: impl Fn(usize) -> bool) {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            let mut lanes = self.lanes.iter().enumerate();
            if !lanes.any(|(lane, of)| of.node == at && is_renewed(lane)) {
                node.renews_nothing();
            }
        }
    }

    /// So many leases of this part were not renewed.
    pub(super) fn not_renewed(&mut self, node: usize, locks: usize, part: Part, reason: &str) {
        self.nodes[node].not_renewed(locks, part, reason);
    }

    pub(super) fn has_renewed(&mut self, node: usize, part: Part) {
        self.nodes[node].has_renewed(part);
    }

    /// The keys of a lane are elsewhere, at a node that may have been named.
    pub(super) fn look_for(&mut self, lane: usize, failure: &Failure, effects: &mut Effects) {
        if self.is_cluster() {
            tracing::debug!(lane, "a bucket is on another node of the Redis cluster");
            let asked = &self.nodes[self.lanes[lane].node].info;
            let named = failure.where_moved().map(|(host, port)| {
                let host = Some(host).filter(|host| !host.is_empty());
                asked.clone().set_addr(address(asked.addr(), host, port))
            });
            self.look(named, effects);
        }
    }

    /// Asks the cluster which node has what, if it is one; first the one that was named for what has moved,
    /// since others may not know of it yet.
    pub(super) fn look(&mut self, named: Option<ConnectionInfo>, effects: &mut Effects) {
        if !self.is_cluster() {
            return;
        }
        if !self.looks.begin() {
            return;
        }
        let candidates = (self.nodes.iter().enumerate())
            .filter(|(place, _)| self.lanes.iter().any(|lane| lane.node == *place))
            .map(|(_, node)| (node.info.clone(), node.link.up().cloned()))
            .collect();
        let (shared, known) = (
            Arc::clone(&self.shared),
            Arc::clone(&self.topology.borrow()),
        );
        effects.push(Effect::call(async move {
            Done::Looked(locate(named, candidates, shared, known).await)
        }));
    }

    /// Has the cluster asked where the nodes are that are not connected to, while something waits for
    /// them: all addresses can have changed.
    pub(super) fn look_for_absent(&mut self, wants: impl Fn(usize) -> bool, effects: &mut Effects) {
        if self
            .next_look_for_absent(wants)
            .is_some_and(|at| at <= Instant::now())
        {
            self.look(None, effects);
        }
    }

    pub(super) fn next_look_for_absent(&self, wants: impl Fn(usize) -> bool) -> Option<Instant> {
        if !self.is_cluster() {
            return None;
        }
        let lanes = self.lanes.iter().enumerate();
        let wanted = lanes.filter(|(lane, _)| wants(*lane));
        let absent = wanted
            .filter_map(|(_, lane)| self.nodes[lane.node].absent_since)
            .min()?;
        Some(self.looks.next_for_absent(absent))
    }

    /// The cluster was asked which node has what.
    pub(super) fn looked(&mut self, result: Result<Topology, LockError>) -> Option<Moved> {
        let found = self.looks.ended(result)?;
        // Nodes keep their places: calls on their way know them by these. Those of nodes that are gone are
        // taken by new ones.
        let mut places: Vec<Option<usize>> = (found.nodes.iter())
            .map(|info| self.place_of(info))
            .collect();
        let mut replaced = Vec::new();
        for (at, info) in found.nodes.into_iter().enumerate() {
            if places[at].is_none() {
                let free = (0..self.nodes.len()).find(|place| !places.contains(&Some(*place)));
                let place = self.put(free, info);
                replaced.push(place);
                places[at] = Some(place);
            }
        }
        let mut left = Vec::new();
        for (place, node) in self.nodes.iter_mut().enumerate() {
            if !places.contains(&Some(place)) {
                node.leave();
                left.push(place);
            }
        }
        let places: Vec<usize> = places.into_iter().flatten().collect();
        for (lane, place) in self.lanes.iter_mut().zip(&found.of_bucket) {
            lane.node = places[*place];
        }
        let of_bucket: Vec<_> = self.lanes.iter().map(|lane| lane.node).collect();
        let is_any = self.topology.send_if_modified(|known| {
            let addresses = self.nodes.iter().map(|node| node.info.addr());
            let has_moved = known.of_bucket != of_bucket
                || !addresses.eq(known.nodes.iter().map(ConnectionInfo::addr));
            if has_moved || known.members != found.members {
                *known = Arc::new(Topology {
                    is_cluster: true,
                    nodes: self.nodes.iter().map(|node| node.info.clone()).collect(),
                    of_bucket,
                    masters: Vec::new(),
                    members: found.members,
                });
            }
            has_moved
        });
        Some(Moved {
            left,
            replaced,
            is_any,
        })
    }

    /// Another node, at the place of one that is gone, if there is such a place.
    fn put(&mut self, free: Option<usize>, info: ConnectionInfo) -> usize {
        let place = free.unwrap_or(self.nodes.len());
        let mut node = Node::new(place, info);
        if let Some(gone) = self.nodes.get_mut(place) {
            // Calls that are on their way are not taken for calls to this one.
            node.id.generation = gone.id.generation + 1;
            *gone = node;
        } else {
            self.nodes.push(node);
        }
        self.shared.servers.set(place, "");
        place
    }
}
