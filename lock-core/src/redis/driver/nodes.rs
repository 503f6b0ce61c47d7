//! The servers: connections for commands, made when they are needed, and where a cluster has what.

use std::sync::Arc;
use std::time::Duration;

use ::redis::ConnectionInfo;
use ::redis::aio::MultiplexedConnection;
use backon::{BackoffBuilder, ExponentialBackoff};
use tokio::time::Instant;

use super::locate::locate;
use super::unconfirmed::Unconfirmed;
use super::{Done, Driver};
use crate::LockError;
use crate::outage::{Outage, SoFar};
use crate::redis::address::address;
use crate::redis::clock::{Jump, ServerClock};
use crate::redis::opened::{Opened, connect};
use crate::redis::scripts::Failure;
use crate::redis::settings::{BACKOFF, LONGEST_PAUSE};
use crate::redis::topology::Topology;

/// Between questions to a cluster which node has what.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The same while an earlier one is not answered: what does not answer costs a whole timeout, and what
/// comes back meanwhile is not to wait for that. It doubles with each that is not answered: each makes
/// connections, and on a machine that is slow at TLS these would leave no time for any of them.
const LOOK_BESIDE: Duration = Duration::from_millis(500);

/// How long a node is not connected to until it is asked where it is.
const ABSENT: Duration = Duration::from_millis(250);

/// One server.
pub(super) struct Node {
    pub(super) info: ConnectionInfo,
    pub(super) link: Link,
    pub(super) via: Via,
    /// What the server calls itself since its start.
    pub(super) run_id: String,
    /// Of the connection: see [`Owner`](crate::redis::key::Owner).
    pub(super) identity: u64,
    /// Since when a connection is asked for.
    absent_since: Option<Instant>,
    backoff: ExponentialBackoff,
    /// No connection can be made.
    outage: Outage,
    /// Whether the present connection has given an answer.
    has_answered: bool,
    pub(super) clock: ServerClock,
    /// Granted there, and to be known to its replicas.
    pub(super) unconfirmed: Vec<Unconfirmed>,
    /// Whether its replicas are being asked for.
    pub(super) is_asked: bool,
    /// Too few of them know its locks.
    pub(super) unknown: Outage,
    /// Leases are not renewed there.
    pub(super) unrenewed: Outage,
}

/// Which connection a call went over.
#[derive(Clone, Copy, Default)]
pub(super) struct Via {
    /// Which may not have that lane any more.
    pub(super) node: usize,
    /// Counts the connections of a node.
    generation: u64,
    /// Counts the servers that were met: one that was started again is another.
    pub(super) server: u64,
}

pub(super) enum Link {
    Down { retry_at: Instant },
    Connecting,
    Up(MultiplexedConnection),
}

impl Node {
    pub(super) fn new(place: usize, info: ConnectionInfo) -> Self {
        Self {
            info,
            link: Link::Down {
                retry_at: Instant::now(),
            },
            via: Via {
                node: place,
                ..Via::default()
            },
            run_id: String::new(),
            identity: 0,
            absent_since: None,
            backoff: BACKOFF.build(),
            outage: Outage::new(),
            has_answered: false,
            clock: ServerClock::default(),
            unconfirmed: Vec::new(),
            is_asked: false,
            unknown: Outage::new(),
            unrenewed: Outage::new(),
        }
    }

    /// It has nothing any more.
    fn leave(&mut self) {
        let retry_at = Instant::now();
        self.link = Link::Down { retry_at };
        self.absent_since = None;
        let unconfirmed = std::mem::take(&mut self.unconfirmed);
        unconfirmed.into_iter().for_each(Unconfirmed::refuse);
    }

    /// No connection for a while, which is longer each time until it answers; gives its end.
    fn back_off(&mut self) -> Instant {
        let retry_at = Instant::now() + self.backoff.next().unwrap_or(LONGEST_PAUSE);
        self.link = Link::Down { retry_at };
        retry_at
    }
}

impl Driver {
    /// The connection of a lane; where there is none, one is asked for.
    pub(super) fn connection(&mut self, lane: usize) -> Option<(MultiplexedConnection, Via)> {
        let at = self.lanes[lane].node;
        let is_old = self.is_mastery_old();
        let node = &mut self.nodes[at];
        match &node.link {
            // The Sentinels are being asked.
            Link::Up(_) if is_old => return None,
            Link::Up(connection) => return Some((connection.clone(), node.via)),
            Link::Connecting => return None,
            Link::Down { retry_at } if *retry_at > Instant::now() => return None,
            Link::Down { .. } => {}
        }
        node.link = Link::Connecting;
        node.absent_since.get_or_insert_with(Instant::now);
        let (info, shared) = (node.info.clone(), Arc::clone(&self.shared));
        self.calls.push(Box::pin(async move {
            let result = Box::new(connect(&info, &shared).await);
            Done::Connected {
                node: at,
                address: info.addr().clone(),
                result,
            }
        }));
        None
    }

    pub(super) fn connected(&mut self, node: usize, result: Result<Opened, LockError>) {
        let result = result.and_then(|opened| self.expected(opened));
        if let Ok(opened) = &result {
            self.is_master_as_of(opened.asked);
            self.follow(node, &opened.info);
        }
        let this = &mut self.nodes[node];
        match result {
            Ok(opened) => {
                this.outage.over(|lasted| {
                    tracing::info!(server = %this.info.addr(), ?lasted, "a Redis server can be connected to again");
                });
                this.link = Link::Up(opened.connection);
                this.absent_since = None;
                let since =
                    (opened.reign.as_ref()).map(|reign| self.reigns.note(reign, opened.sent));
                // A master already when the one of before still lived: not that one started again, nor a replica
                // that took its place, which keep a quarantine of their own. It knows nothing of what the other
                // has granted, or goes on where it was before there was that other.
                let ran_beside = self.lanes.len() == 1
                    && since.is_some_and(|since| since < self.shared.servers.lived());
                this.via.generation += 1;
                this.has_answered = false;
                this.identity = opened.identity;
                if this.run_id != opened.run_id {
                    self.shared.servers.set(node, &opened.run_id);
                    self.shared.servers.live(opened.sent);
                    this.run_id = opened.run_id;
                    self.last_server += 1;
                    if ran_beside {
                        // Nobody is granted a lock there for one lease, as after a jump of its clock.
                        self.lanes.iter_mut().for_each(|lane| lane.jumped = true);
                    }
                    this.via.server = self.last_server;
                    // What it lacks of what is held is known as soon as it can be.
                    self.renewals.next = Instant::now();
                    // Another server's clock; what it forgot is told by its own quarantine.
                    this.clock = ServerClock::default();
                    // Its replicas know nothing of what the former one has granted.
                    let unconfirmed = std::mem::take(&mut this.unconfirmed);
                    unconfirmed.into_iter().for_each(Unconfirmed::refuse);
                }
                let margin = self.shared.settings.margin();
                let jump = this
                    .clock
                    .observe(opened.sent, opened.received, opened.time, margin);
                if jump == Some(Jump::Forward) {
                    self.jumped(node);
                }
                self.renew_when_connected(Instant::now());
            }
            Err(error) => {
                let retry_at = this.back_off();
                this.outage.failed(|SoFar { failures, lasting }| {
                    tracing::warn!(
                        server = %this.info.addr(), reason = %error, failures, lasting,
                        "a Redis server cannot be connected to: its locks are neither granted nor renewed"
                    );
                });
                self.without(node, &error);
                self.renew_when_connected(retry_at);
            }
        }
    }

    /// The server of this node is at another address than before, as Sentinels say.
    fn follow(&mut self, node: usize, info: &ConnectionInfo) {
        if self.nodes[node].info.addr() != info.addr() {
            self.nodes[node].info = info.clone();
            // For the second connection, which is to be one to the same server.
            let topology = Topology::single(info.clone());
            self.topology.send_replace(Arc::new(topology));
        }
    }

    /// The address of the only server leads to this one alone: what is held is renewed there, or lost.
    pub(super) fn follow_address(&mut self, run_id: &str) {
        let (now, node) = (Instant::now(), &mut self.nodes[0]);
        if node.run_id != run_id && !matches!(node.link, Link::Connecting) {
            node.link = Link::Down { retry_at: now };
            self.renewals.next = now;
            let _ = self.connection(0);
        }
    }

    /// Whether it is one of the servers that keep these locks: an address can become another's.
    fn expected(&self, opened: Opened) -> Result<Opened, LockError> {
        let known = self.topology.borrow();
        match &opened.member {
            None if !known.is_cluster => Ok(opened),
            Some(id) if known.is_cluster && known.members.contains(id) => Ok(opened),
            _ => Err(LockError::unavailable(
                "the address of a Redis server leads to another that does not belong to it",
            )),
        }
    }

    /// What waited for this node is told why it is not there; releases wait on.
    fn without(&mut self, node: usize, error: &LockError) {
        let error = || error.duplicate_as_unavailable();
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].node != node {
                continue;
            }
            for acquire in std::mem::take(&mut self.lanes[lane].acquires) {
                acquire.reply.send(Err(error()));
            }
            for claim in std::mem::take(&mut self.lanes[lane].claims) {
                claim.fail(error);
            }
            for probe in std::mem::take(&mut self.lanes[lane].probes) {
                let _ = probe.send(Err(error()));
            }
        }
        if self.lanes.len() > 1 {
            self.look(None);
        }
    }

    /// Nothing more goes over a connection that may be dead, or whose server is no master.
    pub(super) fn drop_link(&mut self, via: Via, failure: &Failure) {
        let node = &mut self.nodes[via.node];
        let is_dead = !matches!(failure, Failure::Refused(_));
        let is_single = self.lanes.len() == 1;
        if node.via.generation == via.generation
            && matches!(node.link, Link::Up(_))
            && (is_dead || (is_single && failure.is_elsewhere()))
        {
            // A server that answers so, or lets everyone in and answers nothing, is not asked again at full
            // speed.
            if matches!(failure, Failure::Nonsense) || !node.has_answered {
                node.back_off();
            } else {
                node.link = Link::Down {
                    retry_at: Instant::now(),
                };
            }
        }
    }

    /// This node has answered what it was asked.
    pub(super) fn is_well(&mut self, via: Via) {
        let node = &mut self.nodes[via.node];
        if node.via.generation == via.generation {
            node.backoff = BACKOFF.build();
            node.has_answered = true;
        }
    }

    /// The keys of a lane are elsewhere, at a node that may have been named.
    pub(super) fn look_for_nodes(&mut self, lane: usize, failure: &Failure) {
        if self.lanes.len() > 1 {
            tracing::debug!(lane, "a bucket is on another node of the Redis cluster");
            let asked = &self.nodes[self.lanes[lane].node].info;
            let named = failure.where_moved().map(|(host, port)| {
                let host = Some(host).filter(|host| !host.is_empty());
                asked.clone().set_addr(address(asked.addr(), host, port))
            });
            self.look(named);
        }
    }

    /// Asks the cluster which node has what; first the one that was named for what has moved, since others
    /// may not know of it yet.
    fn look(&mut self, named: Option<ConnectionInfo>) {
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
            .map(|(_, node)| match &node.link {
                Link::Up(connection) => (node.info.clone(), Some(connection.clone())),
                _ => (node.info.clone(), None),
            })
            .collect();
        let (shared, known) = (
            Arc::clone(&self.shared),
            Arc::clone(&self.topology.borrow()),
        );
        self.calls.push(Box::pin(async move {
            Done::Looked(locate(named, candidates, shared, known).await)
        }));
    }

    fn until_look_beside(&self) -> Duration {
        LOOK_BESIDE * (1 << self.looking.saturating_sub(1).min(4))
    }

    /// Has the cluster asked where the nodes are that are not connected to, while something waits for
    /// them: all addresses can have changed.
    pub(super) fn look_for_absent(&mut self) {
        if self
            .next_look_for_absent()
            .is_some_and(|at| at <= Instant::now())
        {
            self.look(None);
        }
    }

    pub(super) fn next_look_for_absent(&self) -> Option<Instant> {
        if self.lanes.len() == 1 {
            return None;
        }
        let renews = self.renewals.again.is_some();
        let lanes = self.lanes.iter().filter(|lane| renews || !lane.is_empty());
        let absent = lanes
            .filter_map(|lane| self.nodes[lane.node].absent_since)
            .min()?
            + ABSENT;
        Some(self.looked.map_or(absent, |looked| {
            absent.max(looked + self.until_look_beside())
        }))
    }

    pub(super) fn looked(&mut self, result: Result<Topology, LockError>) {
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
                return;
            }
        };
        self.unlocated.over(|lasted| {
            tracing::info!(?lasted, "the Redis cluster says again which node has what");
        });
        // Nodes keep their places: calls on their way know them by these. Those of nodes that are gone are
        // taken by new ones.
        let mut places: Vec<Option<usize>> = (found.nodes.iter())
            .map(|info| {
                let mut nodes = self.nodes.iter();
                nodes.position(|node| node.info.addr() == info.addr())
            })
            .collect();
        for (at, info) in found.nodes.into_iter().enumerate() {
            if places[at].is_none() {
                let free = (0..self.nodes.len()).find(|place| !places.contains(&Some(*place)));
                places[at] = Some(self.put(free, info));
            }
        }
        for (place, node) in self.nodes.iter_mut().enumerate() {
            if !places.contains(&Some(place)) {
                node.leave();
            }
        }
        let places: Vec<usize> = places.into_iter().flatten().collect();
        for (lane, place) in self.lanes.iter_mut().zip(&found.of_bucket) {
            lane.node = places[*place];
        }
        let of_bucket: Vec<_> = self.lanes.iter().map(|lane| lane.node).collect();
        let has_moved = self.topology.send_if_modified(|known| {
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
        if has_moved {
            // To see the reign of a new master from its beginning.
            self.ask_masters();
        }
    }

    /// Another node, at the place of one that is gone, if there is such a place.
    fn put(&mut self, free: Option<usize>, info: ConnectionInfo) -> usize {
        let place = free.unwrap_or(self.nodes.len());
        let mut node = Node::new(place, info);
        if let Some(gone) = self.nodes.get_mut(place) {
            gone.leave();
            // Calls that are on their way are not taken for calls to this one.
            node.via.generation = gone.via.generation + 1;
            *gone = node;
        } else {
            self.nodes.push(node);
        }
        self.shared.servers.set(place, "");
        place
    }
}
