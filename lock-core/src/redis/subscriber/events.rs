//! What connections bring: messages, answers, and their ends.

use std::sync::Arc;
use std::time::Duration;

use ::redis::{PushInfo, PushKind, RedisError, Value};
use tokio::time::Instant;

use super::calls::{Done, Trouble, Via};
use super::{Link, MOVED, REFUSED, RETRY_DELAY, Subscriber};
use crate::LockError;
use crate::redis::command::Command;
use crate::redis::scripts::has_moved;
use crate::redis::steps::Step;
use crate::redis::waiting::Asked;
use crate::server::leased::WaiterTable;

impl Subscriber {
    pub(super) fn hear(&mut self, via: Via, push: PushInfo) {
        let channel = match push.data.first() {
            Some(Value::BulkString(channel)) => str::from_utf8(channel).unwrap_or_default(),
            _ => "",
        };
        match push.kind {
            PushKind::Message | PushKind::SMessage => {
                self.shared.waiting.wake_readers(channel);
                let waited = self.shared.waiting.waited_at(channel);
                // Of one that stays closed: its waiters ask when it opens, each for itself.
                let is_kept = matches!(push.data.get(1), Some(Value::BulkString(message)) if !message.is_empty());
                if is_kept && let Some(key) = &waited {
                    return self.shared.waiting.wake_waiters(key);
                }
                let acquire = waited.map(Command::AcquireForWaiting);
                self.shared.queues.requests.push_all(acquire);
            }
            // A slot has moved, say. The driver takes it for an answer, and each answer after it for that to
            // another question: they confirm nothing any more.
            PushKind::Unsubscribe | PushKind::SUnsubscribe
                if self.is_present(via) && !self.steps[via.node].has_left(channel) =>
            {
                self.down(via, Duration::ZERO);
            }
            PushKind::Disconnection => self.down(via, RETRY_DELAY),
            _ => {}
        }
    }

    /// What is confirmed by another server than that of the commands is confirmed no more.
    pub(super) fn follow(&mut self) {
        self.servers.mark_unchanged();
        let links: Vec<Via> = (self.nodes.iter())
            .filter_map(|link| link.up().map(|(_, via)| *via))
            .collect();
        for via in links {
            if !self.shared.servers.is(via.node, &self.run_ids[via.node]) {
                self.down(via, Duration::ZERO);
            }
        }
    }

    pub(super) fn finish(&mut self, done: Done) {
        match done {
            // To a node that is gone.
            Done::Connected(via, _) if !self.is_awaited(via) => {}
            Done::Connected(via, Ok((connection, run_id))) => {
                let node = via.node;
                if self.shared.servers.is(node, &run_id) {
                    self.nodes[node] = Link::Up((connection, via));
                    self.run_ids[node] = run_id;
                    self.outages[node].is_back();
                } else {
                    let error = LockError::unavailable(
                        "its address leads to another server than that of the commands",
                    );
                    self.finish(Done::Connected(via, Err(error)));
                }
            }
            Done::Connected(Via { node, .. }, Err(error)) => {
                self.outages[node].is_away(&error);
                self.nodes[node] = Link::down_for(RETRY_DELAY);
            }
            Done::Asked(via, step, Ok(errors)) if self.is_present(via) => {
                self.steps[via.node].answered(step.keys().len());
                if let Step::Subscribe(asked) = step {
                    self.subscribed(via, asked, errors);
                }
                self.take_steps(via.node);
            }
            // That connection is gone, and what was subscribed to over it.
            Done::Asked(_, _, Ok(_)) => {}
            Done::Asked(via, _, Err(_))
            | Done::Lives(via, Err(_))
            | Done::Replicated(via, Err(Trouble::Gone)) => self.down(via, RETRY_DELAY),
            Done::Replicated(via, Err(Trouble::Refused(error))) => {
                self.outages[via.node].is_silent(&error);
            }
            Done::Replicated(via, Ok(())) => self.outages[via.node].speaks(),
            Done::Lives(_, Ok(())) => {}
        }
    }

    /// The answers for channels that were to be subscribed to.
    pub(super) fn subscribed(&mut self, via: Via, asked: Asked, errors: Vec<Option<RedisError>>) {
        let number = asked.number;
        let (mut confirmed, mut moved) = (Vec::new(), Vec::new());
        let mut refused = None;
        for (key, error) in asked.keys.into_iter().zip(errors) {
            match error {
                None => confirmed.push(key),
                Some(error) if has_moved(&error) => moved.push(key),
                Some(error) => drop(refused.get_or_insert(error)),
            }
        }
        if let Some(error) = refused {
            self.outages[via.node].is_refused(&error);
            return self.down(via, REFUSED);
        }
        self.outages[via.node].is_taken();
        let keys = confirmed;
        self.shared.waiting.confirmed(&Asked { keys, number });
        if !moved.is_empty() {
            // Commands find out where they are now, since those who wait for them ask.
            let keys = moved;
            let again = Asked { keys, number };
            self.moved.push_back((Instant::now() + MOVED, again));
        }
    }

    /// Whether this is the connection that is being made to its node.
    pub(super) fn is_awaited(&self, via: Via) -> bool {
        matches!(self.nodes[via.node], Link::Connecting(awaited) if awaited == via)
    }

    /// Whether this is the connection that its node has now.
    pub(super) fn is_present(&self, via: Via) -> bool {
        (self.nodes[via.node].up()).is_some_and(|(_, present)| *present == via)
    }

    /// Nothing is subscribed to over a connection that is gone; there is another after this long.
    pub(super) fn down(&mut self, via: Via, after: Duration) {
        // One before that ends late says nothing about the one that there is.
        if !self.is_present(via) {
            return;
        }
        let at = via.node;
        self.nodes[at] = Link::down_for(after);
        self.steps[at].lost();
        let topology = Arc::clone(&self.topology.borrow());
        self.shared
            .waiting
            .forget(|_, bucket| topology.of_bucket[usize::from(bucket)] == at);
    }
}
