//! Granted keys, and what releases them.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::held::Held;
use super::key::{LockKey, Owner};
use super::release::Release;
use super::token::Token;
use crate::LockError;
use crate::backend::{Clock, Grant, Lease};
use crate::server::client::{self, Releases, Reply};
use crate::server::grant::ServerGrant;
use crate::server::terms::{LeaseTerms, PATIENCE};

/// What the backend, its grants and its acquires hold of the thread: when the last of them is gone, it
/// ends.
pub(crate) type Client<K> = client::Client<KeyReleases<K>>;

/// How the locks of a backend are released.
pub(crate) struct KeyReleases<K> {
    pub(crate) held: Arc<Held<K>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) terms: LeaseTerms,
    /// What users call the store.
    pub(crate) store: &'static str,
}

/// What a granted lock is known by.
#[derive(Clone)]
pub(crate) struct Hold<K> {
    pub(crate) key: K,
    pub(crate) owner: Owner,
    /// Of the first holder; those after it have theirs issued.
    pub(crate) token: Option<u64>,
    /// Until when it is to be kept, on CLOCK_BOOTTIME.
    pub(crate) kept_until: Option<Duration>,
    /// Whether the release leaves it closed until then.
    pub(crate) is_kept: bool,
}

/// What a grant asks of the driver.
pub(crate) enum HoldCommand<K> {
    Release(Release<K>),
    Token(Token<K>),
}

impl<K: LockKey> Releases for KeyReleases<K> {
    type Hold = Hold<K>;
    type Command = HoldCommand<K>;

    fn release(&self, hold: &Hold<K>, lease: &Lease, reply: Option<Reply<()>>) -> HoldCommand<K> {
        // The renewals stop with the release.
        self.held.remove(hold.owner);
        HoldCommand::Release(Release {
            key: hold.key.clone(),
            owner: hold.owner,
            reply: reply.map(|reply| (reply, lease.clone())),
            until: (self.clock.now() + self.terms.lease()).max(hold.kept_until.unwrap_or_default()),
            kept_until: hold.kept_until.filter(|_| hold.is_kept),
            sent_to: None,
            ghost: None,
        })
    }

    fn disconnected(&self) -> LockError {
        LockError::unavailable(format!(
            "the driver of {} locks panicked before it answered, and connects again",
            self.store
        ))
    }
}

/// A lock that is held as a leased key. Dropping it starts the release. Users of a backend have it under the name that
/// the backend gives it.
pub struct KeyGrant<K: LockKey>(ServerGrant<KeyReleases<K>>);

impl<K: LockKey> KeyGrant<K> {
    pub(crate) fn new(client: Arc<Client<K>>, hold: Hold<K>, lease: Lease) -> Self {
        Self(ServerGrant::new(client, hold, lease))
    }
}

impl<K: LockKey> Grant for KeyGrant<K> {
    fn lease(&self) -> &Lease {
        self.0.lease()
    }

    async fn release(self) -> Result<(), LockError> {
        self.0.release().await
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        let Hold {
            key, owner, token, ..
        } = self.0.hold().clone();
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

    /// The store was asked for that with the acquire.
    fn keep(&mut self) -> bool {
        let hold = self.0.hold_mut();
        hold.is_kept = hold.kept_until.is_some();
        hold.is_kept
    }
}

impl<K: LockKey> fmt::Debug for KeyGrant<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyGrant")
            .field("lease", self.lease())
            .finish_non_exhaustive()
    }
}
