//! The servers, and the work to know what they are.

use std::sync::Arc;

use ::redis::ConnectionInfo;
use ::redis::aio::MultiplexedConnection;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::calls::Extra;
use super::mastery::Mastery;
use super::moves::Moves;
use super::nodes::Nodes;
use super::replicas::Replicas;
use super::{Done, Effects};
use crate::redis::clock::Jump;
use crate::redis::opened::Opened;
use crate::redis::shared::Shared;
use crate::redis::subscriber::Question;
use crate::redis::topology::Topology;
use crate::server::link::LinkId;
use crate::server::protocol::{Effect, Sent};
use crate::{LockError, LossReason};

/// What is known of the servers. Each part owns its own; what is about several of them is here.
pub(super) struct Upkeep {
    shared: Arc<Shared>,
    pub(super) nodes: Nodes,
    pub(super) moves: Moves,
    pub(super) mastery: Mastery,
    pub(super) replicas: Replicas,
}

impl Upkeep {
    /// Of the servers that are known, without a connection yet.
    pub(super) fn new(
        shared: Arc<Shared>,
        topology: watch::Sender<Arc<Topology>>,
        questions: mpsc::UnboundedSender<Question>,
    ) -> Self {
        let nodes = Nodes::new(Arc::clone(&shared), topology);
        Self {
            moves: Moves::new(Arc::clone(&shared), nodes.lanes()),
            mastery: Mastery::new(Arc::clone(&shared)),
            replicas: Replicas::new(Arc::clone(&shared), questions),
            nodes,
            shared,
        }
    }

    /// Goes on over a connection to this node.
    pub(super) fn begin(&mut self, info: &ConnectionInfo, opened: Opened, effects: &mut Effects) {
        if let Some(node) = self.nodes.place_of(info) {
            self.connected(node, Ok(opened), effects);
        }
        // How long they are masters counts later.
        self.moves.ask_masters(&self.nodes, effects);
    }

    fn connected(&mut self, node: usize, result: Result<Opened, LockError>, effects: &mut Effects) {
        let at = match result.and_then(|opened| self.nodes.expected(opened)) {
            Ok(opened) => {
                self.mastery.is_master_as_of(opened.asked);
                self.nodes.follow(node, &opened.info);
                let reign = opened.reign.as_ref();
                let since = reign.map(|reign| self.moves.note(reign, opened.sent));
                // A master already when the one of before still lived: not that one started again, nor a replica
                // that took its place, which keep a quarantine of their own. It knows nothing of what the other
                // has granted, or goes on where it was before there was that other.
                let ran_beside = !self.nodes.is_cluster()
                    && since.is_some_and(|since| since < self.shared.servers.lived());
                let sent = opened.sent;
                let came = self.nodes.up(node, opened);
                if came.is_another {
                    self.shared.servers.live(sent);
                    if ran_beside {
                        // No lock is granted there for one lease, as after a jump of its clock.
                        self.nodes.lane_mut(0).jumped = true;
                    }
                    // What it lacks of what is held is known as soon as it can be.
                    effects.push(Effect::RenewAll);
                    self.replicas.refuse(node);
                }
                if came.jump == Some(Jump::Forward) {
                    self.jumped(node, effects);
                }
                Instant::now()
            }
            Err(error) => {
                let retry_at = self.nodes.down(node, &error);
                let lanes = self.nodes.lanes_of(node);
                // Those that wait for this node get the reason why it is not there.
                effects.push(Effect::Refuse { lanes, error });
                self.nodes.look(None, effects);
                retry_at
            }
        };
        effects.push(Effect::RenewBy(at));
    }

    /// The address of the only server leads to this one alone: what is held is renewed there, or lost.
    fn follow_address(&mut self, run_id: &str, effects: &mut Effects) {
        if self.nodes.run_id(0) != run_id && !self.nodes.is_connecting(0) {
            self.nodes.disconnect(0);
            effects.push(Effect::RenewAll);
            let _ = self.nodes.connection(0, effects);
        }
    }

    /// A server's clock was put forward: leases on it may have ended early.
    fn jumped(&mut self, node: usize, effects: &mut Effects) {
        tracing::error!("the clock of the Redis server jumped forward: its locks are lost");
        self.nodes.jumped(node, self.shared.clock.now());
        let lanes = self.nodes.lanes_of(node);
        for lane in &lanes {
            self.nodes.lane_mut(*lane).jumped = true;
        }
        effects.push(Effect::Lose {
            lanes,
            reason: LossReason::Expired,
        });
    }

    /// Takes note of a server's time.
    pub(super) fn saw_time(
        &mut self,
        sent: Sent,
        time: u64,
        effects: &mut Effects,
    ) -> Option<Jump> {
        let jump = self.nodes.saw_time(sent, time);
        if jump == Some(Jump::Forward) {
            self.jumped(sent.link.node, effects);
        }
        jump
    }

    fn looked(&mut self, result: Result<Topology, LockError>, effects: &mut Effects) {
        let Some(moved) = self.nodes.looked(result) else {
            return;
        };
        for node in moved.left {
            self.replicas.refuse(node);
        }
        for node in moved.replaced {
            self.replicas.replaced(node);
        }
        if moved.is_any {
            // To see the reign of a new master from its beginning.
            self.moves.ask_masters(&self.nodes, effects);
        }
    }

    /// Whether an answer over this connection is of the master as it is known now.
    pub(super) fn is_of_master(&self, link: LinkId) -> bool {
        self.shared.sentinels.is_none() || self.nodes.is_present(link)
    }

    /// The connection of a lane; where there is none, one is asked for.
    pub(super) fn connection(
        &mut self,
        lane: usize,
        effects: &mut Effects,
    ) -> Option<(MultiplexedConnection, LinkId)> {
        let node = self.nodes.lane(lane).node;
        if self.mastery.is_old() && self.nodes.is_up(node) {
            // The Sentinels are being asked.
            return None;
        }
        self.nodes.connection(node, effects)
    }

    pub(super) fn has_extra(&self, lane: usize) -> bool {
        self.nodes.lane(lane).jumped || self.moves.has_proof(lane)
    }

    pub(super) fn take_extra(&mut self, lane: usize) -> Option<Extra> {
        if !self.has_extra(lane) {
            return None;
        }
        let jumped = std::mem::take(&mut self.nodes.lane_mut(lane).jumped);
        let proof = self.moves.take_proof(lane);
        (jumped || proof.is_some()).then_some(Extra { jumped, proof })
    }

    pub(super) fn work(&mut self, wants: impl Fn(usize) -> bool, effects: &mut Effects) {
        self.nodes.look_for_absent(wants, effects);
        self.moves.settle_doubts(&self.nodes, effects);
        self.mastery.watch(&mut self.nodes, effects);
        if self.shared.split.take_end() {
            // No lock is granted for one lease, as after a jump of the server's clock.
            self.nodes.lane_mut(0).jumped = true;
        }
        if let Some(run_id) = self.shared.split.take_followed() {
            self.follow_address(&run_id, effects);
        }
        self.replicas.confirm(&self.nodes, effects);
    }

    pub(super) fn next_work(&self, wants: impl Fn(usize) -> bool) -> Option<Instant> {
        let next = [
            self.nodes.next_look_for_absent(wants),
            self.moves.next(),
            self.mastery.next(),
        ];
        next.into_iter().flatten().min()
    }

    pub(super) fn done(&mut self, done: Done, effects: &mut Effects) {
        match done {
            Done::Connected {
                node,
                address,
                result,
            } => {
                // Its place can be that of another by now.
                if *self.nodes.address(node) == address {
                    self.connected(node, *result, effects);
                }
            }
            Done::Looked(result) => self.looked(result, effects),
            Done::Asked(result) => self.moves.masters_answered(result, &self.nodes),
            Done::Watched {
                asked,
                than,
                another,
            } => {
                let nodes = &mut self.nodes;
                (self.mastery).watched(asked, &than, another, nodes, effects);
            }
            Done::Confirmed {
                node,
                grants,
                known,
            } => self.replicas.confirmed(node, grants, known, &self.nodes),
        }
    }
}
