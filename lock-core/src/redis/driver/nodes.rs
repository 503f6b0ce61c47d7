//! The servers: connections for commands, made when they are needed, and where a cluster has what.

use std::sync::Arc;
use std::time::Duration;

use ::redis::ConnectionInfo;
use ::redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::replicas::Unconfirmed;
use super::{Done, Driver};
use crate::LockError;
use crate::outage::{Outage, SoFar};
use crate::redis::clock::{Jump, ServerClock};
use crate::redis::connect::open;
use crate::redis::opened::{Opened, connect};
use crate::redis::scripts::Failure;
use crate::redis::seeds;
use crate::redis::topology::Topology;

/// Between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Between questions to a cluster which node has what.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One server.
pub(super) struct Node {
    pub(super) info: ConnectionInfo,
    pub(super) link: Link,
    pub(super) via: Via,
    /// What the server calls itself since its start.
    run_id: String,
    /// Of the connection: see [`Owner`](crate::redis::key::Owner).
    pub(super) identity: u64,
    backoff: Duration,
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
            backoff: BACKOFF.0,
            outage: Outage::new(),
            has_answered: false,
            clock: ServerClock::default(),
            unconfirmed: Vec::new(),
            is_asked: false,
            unknown: Outage::new(),
            unrenewed: Outage::new(),
        }
    }

    /// No connection for a while, which is longer each time until it answers; gives its end.
    fn back_off(&mut self) -> Instant {
        let retry_at = Instant::now() + self.backoff;
        self.link = Link::Down { retry_at };
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
        retry_at
    }
}

impl Driver {
    /// The connection of a lane; where there is none, one is asked for.
    pub(super) fn connection(&mut self, lane: usize) -> Option<(MultiplexedConnection, Via)> {
        let at = self.lanes[lane].node;
        let node = &mut self.nodes[at];
        match &node.link {
            Link::Up(connection) => return Some((connection.clone(), node.via)),
            Link::Connecting => return None,
            Link::Down { retry_at } if *retry_at > Instant::now() => return None,
            Link::Down { .. } => {}
        }
        node.link = Link::Connecting;
        let (info, shared) = (node.info.clone(), Arc::clone(&self.shared));
        self.calls.push(Box::pin(async move {
            let result = connect(&info, &shared).await;
            Done::Connected { node: at, result }
        }));
        None
    }

    pub(super) fn connected(&mut self, node: usize, result: Result<Opened, LockError>) {
        let result = result.and_then(|opened| self.expected(opened));
        let this = &mut self.nodes[node];
        match result {
            Ok(opened) => {
                this.outage.over(|lasted| {
                    tracing::info!(server = %this.info.addr(), ?lasted, "a Redis server can be connected to again");
                });
                this.link = Link::Up(opened.connection);
                this.via.generation += 1;
                this.has_answered = false;
                this.identity = opened.identity;
                if this.run_id != opened.run_id {
                    this.run_id = opened.run_id;
                    self.last_server += 1;
                    this.via.server = self.last_server;
                    // Another server's clock; what it forgot is told by its own quarantine.
                    this.clock = ServerClock::default();
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
            self.look();
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
            node.backoff = BACKOFF.0;
            node.has_answered = true;
        }
    }

    /// The keys of a lane are elsewhere.
    pub(super) fn look_for_nodes(&mut self, lane: usize) {
        if self.lanes.len() > 1 {
            tracing::debug!(lane, "a bucket is on another node of the Redis cluster");
            self.look();
        }
    }

    /// Asks the cluster which node has what.
    fn look(&mut self) {
        let now = Instant::now();
        if self.looked.is_some_and(|looked| looked + LOOK_AGAIN > now) {
            return;
        }
        self.looked = Some(now);
        let shared = Arc::clone(&self.shared);
        let mut candidates: Vec<_> = self
            .nodes
            .iter()
            .map(|node| match &node.link {
                Link::Up(connection) => (node.info.clone(), Some(connection.clone())),
                _ => (node.info.clone(), None),
            })
            .collect();
        let known = Arc::clone(&self.topology.borrow());
        // Those that are connected first.
        candidates.sort_by_key(|(_, connection)| connection.is_none());
        self.calls.push(Box::pin(async move {
            for (info, connection) in candidates {
                let connection = match connection {
                    Some(connection) => Ok(connection),
                    None => open(&info, &shared.settings, None).await,
                };
                let topology = match connection {
                    Ok(mut connection) => {
                        Topology::of_cluster(&mut connection, &info, &shared.settings).await
                    }
                    Err(error) => Err(error),
                };
                // An address can have become that of a node of another cluster.
                if let Ok(topology) = topology
                    && topology.is_of(&known)
                {
                    return Done::Looked(Ok(topology));
                }
            }
            // As a process that starts now.
            Done::Looked(seeds::locate(&shared).await)
        }));
    }

    pub(super) fn looked(&mut self, result: Result<Topology, LockError>) {
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
        // Nodes keep their places: calls on their way know them by these.
        let places: Vec<usize> = found
            .nodes
            .into_iter()
            .map(|info| {
                let known = self
                    .nodes
                    .iter()
                    .position(|node| node.info.addr() == info.addr());
                known.unwrap_or_else(|| {
                    let place = self.nodes.len();
                    self.nodes.push(Node::new(place, info));
                    place
                })
            })
            .collect();
        for (lane, place) in self.lanes.iter_mut().zip(&found.of_bucket) {
            lane.node = places[*place];
        }
        let of_bucket: Vec<_> = self.lanes.iter().map(|lane| lane.node).collect();
        self.topology.send_if_modified(|known| {
            let has_moved = known.of_bucket != of_bucket || known.nodes.len() != self.nodes.len();
            if has_moved || known.members != found.members {
                *known = Arc::new(Topology {
                    is_cluster: true,
                    nodes: self.nodes.iter().map(|node| node.info.clone()).collect(),
                    of_bucket,
                    members: found.members,
                });
            }
            has_moved
        });
    }
}
