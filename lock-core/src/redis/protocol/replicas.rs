//! Grants that replicas are to know of before they are given out.
//!
//! `WAIT` stops its connection, and counts what that connection has written. So it is asked on the
//! second connection of a node, after a write of its own: what was granted before that write is
//! before it in what replicas are sent. One question at a time is about all grants of a node so far.

use std::mem;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::nodes::Nodes;
use super::{Done, Effects};
use crate::LockError;
use crate::outage::{Outage, SoFar};
use crate::redis::shared::Shared;
use crate::redis::subscriber::Question;
use crate::redis::waiting::Waiting;
use crate::server::leased::Given;
use crate::server::protocol::{Effect, Sent};

/// What waits for replicas, by the places of nodes.
pub(super) struct Replicas {
    shared: Arc<Shared>,
    /// To who has the second connections.
    questions: mpsc::UnboundedSender<Question>,
    of_nodes: Vec<OfNode>,
}

struct OfNode {
    /// Granted there, and to be known to its replicas.
    unconfirmed: Vec<Unconfirmed>,
    /// Whether its replicas are being asked for.
    is_asked: bool,
    /// Too few of them know its locks.
    unknown: Outage,
}

pub(in crate::redis) struct Unconfirmed {
    of: Given<Waiting>,
    lane: usize,
}

impl Unconfirmed {
    /// Too few replicas know of it.
    fn refuse(self) {
        self.of.refuse(LockError::unavailable(
            "too few replicas of the Redis server acknowledged the lock in time",
        ));
    }
}

impl OfNode {
    const fn new() -> Self {
        Self {
            unconfirmed: Vec::new(),
            is_asked: false,
            unknown: Outage::new(),
        }
    }
}

impl Replicas {
    pub(super) const fn new(
        shared: Arc<Shared>,
        questions: mpsc::UnboundedSender<Question>,
    ) -> Self {
        Self {
            shared,
            questions,
            of_nodes: Vec::new(),
        }
    }

    /// Gives out what was granted over this connection, whose node may not have the lane any more, together
    /// or when its replicas know of it. Those of another server, which the node is by now, know nothing of it.
    pub(super) fn give(&mut self, sent: Sent, given: Given<Waiting>, is_present: bool) {
        if self.shared.settings.replicas == 0 {
            return given.give();
        }
        let unconfirmed = Unconfirmed {
            of: given,
            lane: sent.lane,
        };
        if is_present {
            self.of_node(sent.link.node).unconfirmed.push(unconfirmed);
        } else {
            unconfirmed.refuse();
        }
    }

    fn of_node(&mut self, node: usize) -> &mut OfNode {
        if self.of_nodes.len() <= node {
            self.of_nodes.resize_with(node + 1, OfNode::new);
        }
        &mut self.of_nodes[node]
    }

    /// The node has nothing any more, or is another server, whose replicas know nothing of what the former
    /// one has granted.
    pub(super) fn refuse(&mut self, node: usize) {
        if let Some(of_node) = self.of_nodes.get_mut(node) {
            let unconfirmed = mem::take(&mut of_node.unconfirmed);
            unconfirmed.into_iter().for_each(Unconfirmed::refuse);
        }
    }

    /// Another node is at this place.
    pub(super) fn replaced(&mut self, node: usize) {
        self.refuse(node);
        if let Some(of_node) = self.of_nodes.get_mut(node) {
            *of_node = OfNode::new();
        }
    }

    /// Asks for the replicas of each node that has granted something.
    pub(super) fn confirm(&mut self, nodes: &Nodes, effects: &mut Effects) {
        for (at, of_node) in self.of_nodes.iter_mut().enumerate() {
            let Some(first) = of_node.unconfirmed.first() else {
                continue;
            };
            if mem::replace(&mut of_node.is_asked, true) {
                continue;
            }
            let (reply, known) = oneshot::channel();
            let question = Question {
                node: at,
                server: nodes.run_id(at).to_owned(),
                key: nodes.lane(first.lane).server_key.clone(),
                reply,
            };
            // Where no caller is left, the reply is dropped.
            let _ = self.questions.send(question);
            let grants = mem::take(&mut of_node.unconfirmed);
            let within = self.shared.settings.answer_within();
            effects.push(Effect::call(async move {
                Done::Confirmed {
                    node: at,
                    grants,
                    known: timeout(within, known).await == Ok(Ok(true)),
                }
            }));
        }
    }

    pub(super) fn confirmed(
        &mut self,
        node: usize,
        grants: Vec<Unconfirmed>,
        known: bool,
        nodes: &Nodes,
    ) {
        let is_lock = |unconfirmed: &&Unconfirmed| matches!(unconfirmed.of, Given::Grant(..));
        let locks = grants.iter().filter(is_lock).count();
        let this = self.of_node(node);
        let server = nodes.address(node);
        this.is_asked = false;
        if known {
            this.unknown.over(|lasted| {
                tracing::info!(%server, ?lasted, "enough replicas of the Redis server acknowledge its locks again");
            });
        } else if locks > 0 {
            this.unknown.failed(|SoFar { failures, lasting }| {
                tracing::warn!(
                    %server, locks, failures, lasting,
                    "too few replicas of the Redis server acknowledged its locks in time: they are not granted"
                );
            });
        }
        for unconfirmed in grants {
            if known {
                unconfirmed.of.give();
            } else {
                unconfirmed.refuse();
            }
        }
    }
}
