//! The servers: connections for commands, made when they are needed, and where a cluster has what.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionAddr, ConnectionInfo};
use tokio::sync::watch;
use tokio::time::Instant;

use super::locate::locate;
use super::{Done, Effects};
use crate::LockError;
use crate::outage::{Outage, SoFar};
use crate::redis::address::address;
use crate::redis::clock::{Jump, ServerClock};
use crate::redis::key::server_key;
use crate::redis::opened::{Opened, connect};
use crate::redis::scripts::Failure;
use crate::redis::settings::BACKOFF;
use crate::redis::shared::Shared;
use crate::redis::topology::Topology;
use crate::server::BackOff;
use crate::server::link::{Link, LinkId};
use crate::server::protocol::{Effect, Sent};

/// Between questions to a cluster which node has what.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The same while an earlier one is not answered: what does not answer costs a whole timeout, and what
/// comes back meanwhile is not to wait for that. It doubles with each that is not answered: each makes
/// connections, and on a machine that is slow at TLS these would leave no time for any of them.
const LOOK_BESIDE: Duration = Duration::from_millis(500);

/// How long a node is not connected to until it is asked where it is.
const ABSENT: Duration = Duration::from_millis(250);

/// The servers, and which of them has what.
pub(super) struct Nodes {
    shared: Arc<Shared>,
    nodes: Vec<Node>,
    lanes: Vec<NodeLane>,
    /// Counts the servers that were met.
    last_server: u64,
    topology: watch::Sender<Arc<Topology>>,
    looked: Option<Instant>,
    /// How many times the cluster is being asked.
    looking: usize,
    /// The cluster does not say which node has what.
    unlocated: Outage,
}

/// Keys that can share a call: all of a server, or a bucket of a cluster.
pub(super) struct NodeLane {
    pub(super) server_key: String,
    /// In a cluster, that of its keys.
    pub(super) bucket: u8,
    pub(super) node: usize,
    /// The server is to be told that its clock jumped.
    pub(super) jumped: bool,
}

/// One server.
struct Node {
    info: ConnectionInfo,
    link: Link<MultiplexedConnection>,
    id: LinkId,
    /// What the server calls itself since its start.
    run_id: String,
    /// Of the connection: see [`Owner`](crate::server::leased::Owner).
    identity: u64,
    /// Since when a connection is asked for.
    absent_since: Option<Instant>,
    backoff: BackOff,
    /// No connection can be made.
    outage: Outage,
    /// Whether the present connection has given an answer.
    has_answered: bool,
    clock: ServerClock,
    /// Leases are not renewed there.
    unrenewed: Outage,
}

/// What a new connection leads to.
pub(super) struct Came {
    /// Whether it is to another server than the one before.
    pub(super) is_another: bool,
    pub(super) jump: Option<Jump>,
}

/// What is different after the cluster was asked.
pub(super) struct Moved {
    /// Places of nodes that have nothing any more.
    pub(super) left: Vec<usize>,
    /// Places that have other nodes.
    pub(super) replaced: Vec<usize>,
    pub(super) is_any: bool,
}

impl Node {
    fn new(place: usize, info: ConnectionInfo) -> Self {
        Self {
            info,
            link: Link::down(),
            id: LinkId {
                node: place,
                ..LinkId::default()
            },
            run_id: String::new(),
            identity: 0,
            absent_since: None,
            backoff: BackOff::new(BACKOFF),
            outage: Outage::new(),
            has_answered: false,
            clock: ServerClock::default(),
            unrenewed: Outage::new(),
        }
    }

    /// It has nothing any more.
    fn leave(&mut self) {
        self.link = Link::down();
        self.absent_since = None;
    }

    /// No connection for a while, which is longer each time until it answers; gives its end.
    fn back_off(&mut self) -> Instant {
        let retry_at = Instant::now() + self.backoff.pause();
        self.link = Link::Down { retry_at };
        retry_at
    }
}

impl Nodes {
    /// Those that are known, without a connection yet.
    pub(super) fn new(shared: Arc<Shared>, topology: watch::Sender<Arc<Topology>>) -> Self {
        let layout = Arc::clone(&topology.borrow());
        let lanes = if layout.is_cluster {
            layout.of_bucket.len()
        } else {
            1
        };
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
            lanes: (0..lanes).map(lane).collect(),
            nodes: nodes.map(|(place, info)| Node::new(place, info)).collect(),
            last_server: 0,
            topology,
            looked: None,
            looking: 0,
            unlocated: Outage::new(),
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
        let this = &mut self.nodes[node];
        this.outage.over(|lasted| {
            tracing::info!(server = %this.info.addr(), ?lasted, "a Redis server can be connected to again");
        });
        this.link = Link::Up(opened.connection);
        this.absent_since = None;
        this.id.generation += 1;
        this.has_answered = false;
        this.identity = opened.identity;
        let is_another = this.run_id != opened.run_id;
        if is_another {
            self.shared.servers.set(node, &opened.run_id);
            this.run_id = opened.run_id;
            self.last_server += 1;
            this.id.server = self.last_server;
            // Another server's clock; what it forgot is told by its own quarantine.
            this.clock = ServerClock::default();
        }
        let margin = self.shared.settings.margin();
        let jump = this
            .clock
            .observe(opened.sent, opened.received, opened.time, margin);
        Came { is_another, jump }
    }

    /// None could be made; gives when it can be again.
    pub(super) fn down(&mut self, node: usize, error: &LockError) -> Instant {
        let this = &mut self.nodes[node];
        let retry_at = this.back_off();
        this.outage.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                server = %this.info.addr(), reason = %error, failures, lasting,
                "a Redis server cannot be connected to: its locks are neither granted nor renewed"
            );
        });
        retry_at
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

    /// Nothing more goes over a connection that may be dead, or whose server is no master.
    pub(super) fn drop_link(&mut self, link: LinkId, failure: &Failure) {
        let is_single = !self.is_cluster();
        let node = &mut self.nodes[link.node];
        let is_dead = !matches!(failure, Failure::Refused(_));
        if node.id.generation == link.generation
            && node.link.up().is_some()
            && (is_dead || (is_single && failure.is_elsewhere()))
        {
            // A server that answers so, or lets everyone in and answers nothing, is not asked again at full
            // speed.
            if matches!(failure, Failure::Nonsense) || !node.has_answered {
                node.back_off();
            } else {
                self.disconnect(link.node);
            }
        }
    }

    /// This node has answered what it was asked.
    pub(super) fn is_well(&mut self, link: LinkId) {
        let node = &mut self.nodes[link.node];
        if node.id.generation == link.generation {
            node.backoff.reset();
            node.has_answered = true;
        }
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

    /// Leases are renewed at these lanes.
    pub(super) fn renewing(&mut self, is_renewed: impl Fn(usize) -> bool) {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            let mut lanes = self.lanes.iter().enumerate();
            if !lanes.any(|(lane, of)| of.node == at && is_renewed(lane)) {
                // What was not renewed in time is lost, which has a line of its own.
                node.unrenewed.over(|_| ());
            }
        }
    }

    /// So many leases were not renewed.
    pub(super) fn not_renewed(&mut self, node: usize, locks: usize, failure: &Failure) {
        let node = &mut self.nodes[node];
        node.unrenewed.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                server = %node.info.addr(), reason = %failure, locks, failures, lasting,
                "leases in Redis were not renewed; they are tried again until they end"
            );
        });
    }

    pub(super) fn has_renewed(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.unrenewed.over(|lasted| {
            tracing::info!(server = %node.info.addr(), ?lasted, "leases in Redis are renewed again");
        });
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
        let now = Instant::now();
        let pause = match self.looking {
            0 => LOOK_AGAIN,
            _ => self.until_look_beside(),
        };
        if self.looked.is_some_and(|looked| looked + pause > now) {
            return;
        }
        self.looked = Some(now);
        self.looking += 1;
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

    fn until_look_beside(&self) -> Duration {
        LOOK_BESIDE * (1 << self.looking.saturating_sub(1).min(4))
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
            .min()?
            + ABSENT;
        Some(self.looked.map_or(absent, |looked| {
            absent.max(looked + self.until_look_beside())
        }))
    }

    /// The cluster was asked which node has what.
    pub(super) fn looked(&mut self, result: Result<Topology, LockError>) -> Option<Moved> {
        self.looking -= 1;
        let found = match result {
            Ok(found) => found,
            Err(error) => {
                self.unlocated.failed(|SoFar { failures, lasting }| {
                    tracing::warn!(
                        %error, failures, lasting,
                        "the Redis cluster does not say which node has what: locks that have moved are not found"
                    );
                });
                return None;
            }
        };
        self.unlocated.over(|lasted| {
            tracing::info!(?lasted, "the Redis cluster says again which node has what");
        });
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
