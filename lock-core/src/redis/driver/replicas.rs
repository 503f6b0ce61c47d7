//! Grants that replicas are to know of before they are given out.
//!
//! `WAIT` stops its connection, and counts what that connection has written. So it is asked on the
//! second connection of a node, after a write of its own: what was granted before that write is
//! before it in what replicas are sent. One question at a time is about all grants of a node so far.

use std::mem;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Done, Driver};
use crate::LockError;
use crate::backend::Attempt;
use crate::outage::SoFar;
use crate::redis::backend::RedisGrant;
use crate::redis::command::Reply;
use crate::redis::subscriber::Question;

/// Granted by a server whose replicas may not know it yet. Dropped, it is released.
pub(super) struct Unconfirmed {
    grant: RedisGrant,
    reply: Reply,
    lane: usize,
}

impl Driver {
    /// Gives out what this node has granted, which may not have the lane any more, at once or when
    /// its replicas know of it.
    pub(super) fn give(&mut self, lane: usize, node: usize, grant: RedisGrant, reply: Reply) {
        if self.shared.settings.replicas == 0 {
            return reply.send(Ok(Attempt::Granted(grant)));
        }
        let unconfirmed = Unconfirmed { grant, reply, lane };
        self.nodes[node].unconfirmed.push(unconfirmed);
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
        let this = &mut self.nodes[node];
        this.is_asked = false;
        if known {
            this.unknown.over(|lasted| {
                tracing::info!(server = %this.info.addr(), ?lasted, "enough replicas know the locks of a Redis server again");
            });
        } else {
            this.unknown.failed(|SoFar { failures, lasting }| {
                tracing::warn!(
                    server = %this.info.addr(), locks = grants.len(), failures, lasting,
                    "too few replicas of a Redis server know its locks: they are not granted"
                );
            });
        }
        for Unconfirmed { grant, reply, .. } in grants {
            let answer = if known {
                Ok(Attempt::Granted(grant))
            } else {
                drop(grant);
                Err(LockError::unavailable(
                    "too few replicas of the Redis server knew of the lock in time",
                ))
            };
            reply.send(answer);
        }
    }
}
