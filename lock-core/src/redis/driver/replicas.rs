//! Grants that replicas are to know of before they are given out.
//!
//! `WAIT` stops its connection, and counts what that connection has written. So it is asked on the
//! second connection of a node, after a write of its own: what was granted before that write is
//! before it in what replicas are sent. One question at a time is about all grants of a node so far.

use std::mem;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::nodes::Via;
use super::unconfirmed::{For, Unconfirmed};
use super::{Done, Driver};
use crate::backend::Attempt;
use crate::outage::SoFar;
use crate::redis::command::KeyGrant;
use crate::redis::command::{Probe, Reply};
use crate::redis::subscriber::Question;

impl Driver {
    /// Gives out what was granted over this connection, whose node may not have the lane any more, at once
    /// or when its replicas know of it.
    pub(super) fn give(&mut self, lane: usize, via: Via, grant: KeyGrant, reply: Reply) {
        if self.shared.settings.replicas == 0 {
            return reply.send(Ok(Attempt::Granted(grant)));
        }
        let of = For::Grant(grant, reply);
        self.put_to_replicas(via, Unconfirmed { of, lane });
    }

    /// Answers that this node can grant locks, when its replicas know what it writes.
    pub(super) fn give_probe(&mut self, lane: usize, via: Via, probe: Probe) {
        if self.shared.settings.replicas == 0 {
            // Who asked may have left.
            let _ = probe.send(Ok(()));
            return;
        }
        let of = For::Probe(probe);
        self.put_to_replicas(via, Unconfirmed { of, lane });
    }

    /// The replicas of another server, which the node is by now, know nothing of it.
    fn put_to_replicas(&mut self, via: Via, unconfirmed: Unconfirmed) {
        let node = &mut self.nodes[via.node];
        if node.via.server == via.server {
            node.unconfirmed.push(unconfirmed);
        } else {
            unconfirmed.refuse();
        }
    }

    /// Asks for the replicas of each node that has granted something.
    pub(super) fn confirm(&mut self) {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            let Some(first) = node.unconfirmed.first() else {
                continue;
            };
            if mem::replace(&mut node.is_asked, true) {
                continue;
            }
            let (reply, known) = oneshot::channel();
            let question = Question {
                node: at,
                server: node.run_id.clone(),
                key: self.lanes[first.lane].server_key.clone(),
                reply,
            };
            // Where nobody is left to answer, the reply is dropped.
            let _ = self.questions.send(question);
            let grants = mem::take(&mut node.unconfirmed);
            let within = self.shared.settings.answer_within();
            self.calls.push(Box::pin(async move {
                Done::Confirmed {
                    node: at,
                    grants,
                    known: timeout(within, known).await == Ok(Ok(true)),
                }
            }));
        }
    }

    pub(super) fn confirmed(&mut self, node: usize, grants: Vec<Unconfirmed>, known: bool) {
        let is_lock = |unconfirmed: &&Unconfirmed| matches!(unconfirmed.of, For::Grant(..));
        let locks = grants.iter().filter(is_lock).count();
        let this = &mut self.nodes[node];
        this.is_asked = false;
        if known {
            this.unknown.over(|lasted| {
                tracing::info!(server = %this.info.addr(), ?lasted, "enough replicas know the locks of a Redis server again");
            });
        } else if locks > 0 {
            this.unknown.failed(|SoFar { failures, lasting }| {
                tracing::warn!(
                    server = %this.info.addr(), locks, failures, lasting,
                    "too few replicas of a Redis server know its locks: they are not granted"
                );
            });
        }
        for unconfirmed in grants {
            if known {
                unconfirmed.give();
            } else {
                unconfirmed.refuse();
            }
        }
    }
}
