//! What tasks ask of the thread.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::backend::RedisGrant;
use super::key::{Key, Owner};
use super::settings::PATIENCE;
use super::shared::Client;
use crate::LockError;
use crate::backend::{Attempt, Lease};

pub(super) enum Command {
    Acquire(Acquire),
    /// Acquire it for whoever waits for it.
    AcquireForWaiting(Key),
    Claim(Claim),
    Release(Release),
    Token(Token),
    Probe(Probe),
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
            until: client.0.clock.now() + PATIENCE,
            client,
            key,
            owner: Owner::default(),
            reply,
        }
    }
}

/// Who hears of an acquire.
pub(super) enum Reply {
    Caller(oneshot::Sender<Answer>),
    /// Whoever waits for the lock, longest first.
    Waiting(Arc<Client>, Key),
}

impl Reply {
    /// Whether nobody is left to hear of it.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Caller(reply) => reply.is_closed(),
            Self::Waiting(client, key) => !client.0.waiting.is_waited_for(key),
        }
    }

    /// A grant that nobody is there for is dropped, which releases it.
    pub(super) fn send(self, answer: Answer) {
        match (self, answer) {
            (Self::Caller(reply), answer) => drop(reply.send(answer)),
            (Self::Waiting(client, key), Ok(Attempt::Granted(grant))) => {
                client.0.waiting.park(&key, grant);
            }
            // They go on waiting.
            (Self::Waiting(..), Ok(Attempt::Held { .. })) => {}
            // They ask for themselves, and hear why it does not work.
            (Self::Waiting(client, key), Err(_)) => client.0.waiting.wake(&key.text),
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

    /// Whether nobody waits for the answer any more.
    pub(super) fn is_closed(&self) -> bool {
        self.acquires
            .iter()
            .all(|acquire| acquire.reply.is_closed())
    }
}

/// A token of a lock that is held, for a holder to whom it was handed over.
pub(super) struct Token {
    pub(super) key: Key,
    pub(super) owner: Owner,
    pub(super) lease: Lease,
    pub(super) reply: oneshot::Sender<Result<u64, LockError>>,
    /// When it is not asked for again, on CLOCK_BOOTTIME.
    pub(super) until: Duration,
}

pub(super) struct Release {
    pub(super) key: Key,
    pub(super) owner: Owner,
    /// Where somebody waits for the end, and the lease that was to be released.
    pub(super) reply: Option<(oneshot::Sender<Result<(), LockError>>, Lease)>,
    /// When the key has ended by itself.
    pub(super) until: Duration,
    /// The server that it was sent to first, if that did not answer.
    pub(super) sent_to: Option<u64>,
    /// Until when the server may take the acquire that this undoes, if that was not answered.
    pub(super) ghost: Option<Duration>,
}

impl Release {
    /// Undoes an acquire.
    pub(super) fn undo(acquire: &Acquire, until: Duration, ghost: Option<Duration>) -> Self {
        Self {
            key: acquire.key.clone(),
            owner: acquire.owner,
            reply: None,
            until,
            sent_to: None,
            ghost,
        }
    }

    /// The same once more, and after how long: the acquire may come after this.
    pub(super) fn again(&mut self, now: Duration) -> Option<(Duration, Self)> {
        let after = self.ghost.take()?.checked_sub(now)?;
        let again = Self {
            key: self.key.clone(),
            owner: self.owner,
            reply: None,
            until: self.until + after,
            sent_to: None,
            ghost: None,
        };
        Some((after, again))
    }

    pub(super) fn answer(self, answer: Result<(), LockError>) {
        if let Some((reply, _)) = self.reply {
            // Nobody may wait any more.
            let _ = reply.send(answer);
        }
    }
}
