//! What the thread is asked to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::held::{Client, Hold, RedisGrant};
use super::key::{Key, Owner};
use super::release::Release;
use super::settings::PATIENCE;
use super::token::Token;
use super::waiting::Waiting;
use crate::backend::{Attempt, Lease};
use crate::{LockError, oneshot};

pub(super) enum Command {
    Acquire(Acquire),
    /// Acquire it for its waiters.
    AcquireForWaiting(Key),
    Claim(Claim),
    Release(Release),
    Token(Token),
    Probe(Probe),
    /// The address of the only server leads to the one that calls itself this, and to no other.
    Follow(String),
}

/// Answered by each node, and then by its end.
pub(super) type Probe = mpsc::UnboundedSender<Result<(), LockError>>;

pub(super) type Answer = Result<Attempt<RedisGrant>, LockError>;

pub(super) struct Acquire {
    pub(super) client: Arc<Client>,
    pub(super) key: Key,
    /// Of the copy that was sent last.
    pub(super) owner: Owner,
    pub(super) reply: Reply,
    /// When it is not tried again, on CLOCK_BOOTTIME.
    pub(super) until: Duration,
}

impl Acquire {
    pub(super) fn new(client: Arc<Client>, key: Key, reply: Reply) -> Self {
        Self {
            until: client.releases.clock.now() + PATIENCE,
            client,
            key,
            owner: Owner::default(),
            reply,
        }
    }

    /// What it was granted.
    pub(super) fn grant(&self, token: u64, lease: Lease) -> RedisGrant {
        let hold = Hold {
            key: self.key.clone(),
            owner: self.owner,
            token: Some(token),
        };
        RedisGrant::new(Arc::clone(&self.client), hold, lease)
    }

    /// The release of what it was granted, or may have been; `ghost` as in [`Release`].
    pub(super) fn undo(&self, until: Duration, ghost: Option<Duration>) -> Release {
        Release {
            key: self.key.clone(),
            owner: self.owner,
            reply: None,
            until,
            sent_to: None,
            ghost,
        }
    }
}

/// Where the answer to an acquire goes.
pub(super) enum Reply {
    Caller(oneshot::Sender<Answer>),
    /// The waiters of the lock, in order of arrival.
    Waiting(Arc<Waiting>, Key),
}

impl Reply {
    /// Whether the caller has left, or there is no waiter.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Caller(reply) => reply.is_closed(),
            Self::Waiting(waiting, key) => !waiting.is_waited_for(key),
        }
    }

    /// A grant without a caller or waiter is dropped, which releases it.
    pub(super) fn send(self, answer: Answer) {
        match (self, answer) {
            (Self::Caller(reply), answer) => drop(reply.send(answer)),
            (Self::Waiting(waiting, key), Ok(Attempt::Granted(grant))) => {
                waiting.park(&key, grant);
            }
            // They go on waiting.
            (Self::Waiting(..), Ok(Attempt::Held { .. })) => {}
            // They try for themselves, and are given the error.
            (Self::Waiting(waiting, key), Err(_)) => waiting.wake(&key.text),
        }
    }
}

/// Of these, keys of one lane, as many as are free, up to a limit; never empty.
pub(super) struct Claim {
    pub(super) acquires: Vec<Acquire>,
    pub(super) limit: usize,
}

impl Claim {
    /// When it is not tried again, on CLOCK_BOOTTIME.
    pub(super) fn until(&self) -> Duration {
        let all = self.acquires.iter();
        all.map(|acquire| acquire.until).min().unwrap_or_default()
    }

    /// Answers each with such an error.
    pub(super) fn fail(self, error: impl Fn() -> LockError) {
        for acquire in self.acquires {
            acquire.reply.send(Err(error()));
        }
    }

    /// Whether all callers have left.
    pub(super) fn is_closed(&self) -> bool {
        self.acquires
            .iter()
            .all(|acquire| acquire.reply.is_closed())
    }
}
