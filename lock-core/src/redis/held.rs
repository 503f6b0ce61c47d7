//! Granted locks: what is renewed, and what releases it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::key::{Key, Owner};
use super::release::Release;
use super::settings::PATIENCE;
use super::token::Token;
use crate::backend::{Clock, Grant, Lease};
use crate::server::{self, Releases, Reply, ServerGrant};
use crate::{LockError, LossReason};

/// What is held and renewed, by the number of its owner.
#[derive(Default)]
pub(super) struct Held(Mutex<HashMap<u64, HeldLock>>);

#[derive(Clone)]
pub(super) struct HeldLock {
    pub(super) key: Key,
    pub(super) owner: Owner,
    pub(super) lease: Lease,
    /// The server that granted it, or renewed it last.
    pub(super) server: u64,
}

impl Held {
    fn locks(&self) -> MutexGuard<'_, HashMap<u64, HeldLock>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, lock: HeldLock) {
        self.locks().insert(lock.owner.number, lock);
    }

    pub(super) fn remove(&self, owner: Owner) {
        let lock = self.locks().remove(&owner.number);
        // Its drop can run a waker: not under the lock.
        drop(lock);
    }

    /// Another server has it now.
    pub(super) fn moved_to(&self, server: u64, owner: Owner) {
        if let Some(lock) = self.locks().get_mut(&owner.number) {
            lock.server = server;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.locks().is_empty()
    }

    /// What is still ours.
    pub(super) fn all(&self) -> Vec<HeldLock> {
        let all: Vec<_> = self.locks().values().cloned().collect();
        all.into_iter()
            .filter(|lock| lock.lease.is_valid())
            .collect()
    }

    /// Ends the leases of these.
    pub(super) fn lose(&self, reason: LossReason, is_lost: impl Fn(&Key) -> bool) {
        let mut lost = Vec::new();
        self.locks().retain(|_, lock| {
            let keep = !is_lost(&lock.key);
            if !keep {
                lost.push(lock.lease.clone());
            }
            keep
        });
        lost.iter().for_each(|lease| lease.lose(reason));
    }
}

/// What the backend, its grants and its acquires hold of the thread: when the last of them is gone, it
/// ends.
pub(super) type Client = server::Client<KeyReleases>;

/// How the locks of a backend are released.
pub(super) struct KeyReleases {
    pub(super) held: Arc<Held>,
    pub(super) clock: Arc<dyn Clock>,
    /// Of all locks.
    pub(super) lease: Duration,
}

/// What a granted lock is known by.
#[derive(Clone)]
pub(super) struct Hold {
    pub(super) key: Key,
    pub(super) owner: Owner,
    /// Of the first holder; those after it have theirs issued.
    pub(super) token: Option<u64>,
}

/// What a grant asks of the driver.
pub(super) enum HoldCommand {
    Release(Release),
    Token(Token),
}

impl Releases for KeyReleases {
    type Hold = Hold;
    type Command = HoldCommand;

    fn release(&self, hold: &Hold, lease: &Lease, reply: Option<Reply<()>>) -> HoldCommand {
        // The renewals stop with the release.
        self.held.remove(hold.owner);
        HoldCommand::Release(Release {
            key: hold.key.clone(),
            owner: hold.owner,
            reply: reply.map(|reply| (reply, lease.clone())),
            until: self.clock.now() + self.lease,
            sent_to: None,
            ghost: None,
        })
    }

    fn disconnected(&self) -> LockError {
        LockError::unavailable(
            "the driver of Redis locks panicked before it answered, and connects again",
        )
    }
}

/// A lock that is held in Redis. Dropping it starts the release.
pub struct RedisGrant(ServerGrant<KeyReleases>);

impl RedisGrant {
    pub(super) fn new(client: Arc<Client>, hold: Hold, lease: Lease) -> Self {
        Self(ServerGrant::new(client, hold, lease))
    }
}

impl Grant for RedisGrant {
    fn lease(&self) -> &Lease {
        self.0.lease()
    }

    async fn release(self) -> Result<(), LockError> {
        self.0.release().await
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        let Hold { key, owner, token } = self.0.hold().clone();
        let known = self.0.check().map(|()| token).transpose();
        let (client, lease) = (Arc::clone(self.0.client()), self.lease().clone());
        async move {
            if let Some(token) = known {
                return token;
            }
            let until = client.releases.clock.now() + PATIENCE;
            let token = |reply| {
                HoldCommand::Token(Token {
                    key,
                    owner,
                    lease,
                    reply,
                    until,
                })
            };
            client.ask(token).await
        }
    }

    /// The owner in the store stays the same, and the server issues a token for each holder who asks.
    fn hand_over(&mut self) -> bool {
        let can = self.0.is_of_this_process();
        if can {
            self.0.hold_mut().token = None;
        }
        can
    }
}

impl fmt::Debug for RedisGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisGrant")
            .field("lease", self.lease())
            .finish_non_exhaustive()
    }
}
