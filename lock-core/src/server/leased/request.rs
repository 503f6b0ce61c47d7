//! What users ask of the driver, and where its answers go.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::grant::{Client, Hold, KeyGrant};
use super::key::{LockKey, Owner, Part};
use super::question::WhoHolds;
use super::release::Release;
use super::token::Token;
use crate::backend::{Attempt, Lease};
use crate::server::terms::PATIENCE;
use crate::{LockError, oneshot};

/// The waiters of a backend, as its driver needs them.
pub(crate) trait WaiterTable: Send + Sync + 'static {
    type Key: LockKey;

    fn is_waited_for(&self, key: &Self::Key) -> bool;

    /// Leaves a grant to the first waiter. Without one it is released.
    fn park(&self, key: &Self::Key, grant: KeyGrant<Self::Key>);

    /// The waiters of this are to try.
    fn wake_waiters(&self, key: &Self::Key);

    /// All waiters are to try: they are given the error.
    fn wake_all(&self);
}

pub(crate) enum Command<W: WaiterTable> {
    Acquire(Acquire<W>),
    /// Acquire it for its waiters.
    AcquireForWaiting(W::Key),
    Claim(Claim<W>),
    Release(Release<W::Key>),
    Token(Token<W::Key>),
    WhoHolds(WhoHolds<W::Key>),
    Probe(Probe),
}

/// Answered by each node, and then by its end.
pub(crate) type Probe = mpsc::UnboundedSender<Result<(), LockError>>;

pub(crate) type Answer<K> = Result<Attempt<KeyGrant<K>>, LockError>;

pub(crate) struct Acquire<W: WaiterTable> {
    pub(crate) client: Arc<Client<W::Key>>,
    pub(crate) key: W::Key,
    pub(crate) part: Part,
    /// Of the copy that was sent last.
    pub(crate) owner: Owner,
    pub(crate) reply: Reply<W>,
    /// When it is not tried again, on CLOCK_BOOTTIME.
    pub(crate) until: Duration,
    /// How long the lock is to be kept from its grant on.
    pub(crate) at_least: Option<Duration>,
}

impl<W: WaiterTable> Acquire<W> {
    pub(crate) fn new(client: Arc<Client<W::Key>>, key: W::Key, reply: Reply<W>) -> Self {
        Self {
            until: client.releases.clock.now() + PATIENCE,
            client,
            key,
            part: Part::Whole,
            owner: Owner::default(),
            reply,
            at_least: None,
        }
    }

    /// Whether it is tried for the waiters, and not for one caller.
    pub(crate) const fn is_for_waiters(&self) -> bool {
        matches!(self.reply, Reply::Waiting(..))
    }

    /// What it was granted, and is to be kept until then.
    pub(crate) fn grant(
        &self,
        token: u64,
        lease: Lease,
        kept_until: Option<Duration>,
    ) -> KeyGrant<W::Key> {
        let hold = Hold {
            key: self.key.clone(),
            owner: self.owner,
            token: Some(token),
            kept_until,
            is_kept: false,
        };
        KeyGrant::new(Arc::clone(&self.client), hold, lease)
    }

    /// The release of what it was granted, or may have been; `ghost` as in [`Release`].
    pub(crate) fn undo(&self, until: Duration, ghost: Option<Duration>) -> Release<W::Key> {
        Release {
            key: self.key.clone(),
            owner: self.owner,
            reply: None,
            until,
            kept_until: None,
            sent_to: None,
            ghost,
        }
    }
}

/// Where the answer to an acquire goes.
pub(crate) enum Reply<W: WaiterTable> {
    Caller(oneshot::Sender<Answer<W::Key>>),
    /// The waiters of the lock, in order of arrival.
    Waiting(Arc<W>, W::Key),
}

impl<W: WaiterTable> Reply<W> {
    /// Whether the caller has left, or there is no waiter.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Caller(reply) => reply.is_closed(),
            Self::Waiting(waiters, key) => !waiters.is_waited_for(key),
        }
    }

    /// A grant without a caller or waiter is dropped, which releases it.
    pub(crate) fn send(self, answer: Answer<W::Key>) {
        match (self, answer) {
            (Self::Caller(reply), answer) => drop(reply.send(answer)),
            (Self::Waiting(waiters, key), Ok(Attempt::Granted(grant))) => {
                waiters.park(&key, grant);
            }
            // They go on waiting.
            (Self::Waiting(..), Ok(Attempt::Held { .. })) => {}
            // They try for themselves, and are given the error.
            (Self::Waiting(waiters, key), Err(_)) => waiters.wake_waiters(&key),
        }
    }
}

/// Of these, keys of one lane, as many as are free, up to a limit; never empty.
pub(crate) struct Claim<W: WaiterTable> {
    pub(crate) acquires: Vec<Acquire<W>>,
    pub(crate) limit: usize,
}

impl<W: WaiterTable> Claim<W> {
    /// When it is not tried again, on CLOCK_BOOTTIME.
    pub(crate) fn until(&self) -> Duration {
        let all = self.acquires.iter();
        all.map(|acquire| acquire.until).min().unwrap_or_default()
    }

    /// Answers each with such an error.
    pub(crate) fn fail(self, error: impl Fn() -> LockError) {
        for acquire in self.acquires {
            acquire.reply.send(Err(error()));
        }
    }

    /// Whether all callers have left.
    pub(crate) fn is_closed(&self) -> bool {
        self.acquires
            .iter()
            .all(|acquire| acquire.reply.is_closed())
    }
}

/// What a request led to, on its way to who asked.
pub(crate) enum Given<W: WaiterTable> {
    /// Dropped, it is released.
    Grant(KeyGrant<W::Key>, Reply<W>),
    /// Locks could be granted.
    Probe(Probe),
}

impl<W: WaiterTable> Given<W> {
    pub(crate) fn give(self) {
        match self {
            Self::Grant(grant, reply) => reply.send(Ok(Attempt::Granted(grant))),
            // Who asked may have left.
            Self::Probe(probe) => drop(probe.send(Ok(()))),
        }
    }

    #[cfg(feature = "redis")]
    pub(crate) fn refuse(self, error: LockError) {
        match self {
            Self::Grant(grant, reply) => {
                // Released before the answer, so that the next try finds it free.
                drop(grant);
                reply.send(Err(error));
            }
            Self::Probe(probe) => drop(probe.send(Err(error))),
        }
    }
}
