//! The backend and its grants: commands to the thread, and their answers.

use std::fmt;
use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::builder::RedisBuilder;
use super::command::{Acquire, Answer, Command, Release};
use super::key::{Key, Owner};
use super::shared::{Client, Shared};
use crate::backend::{Attempt, Backend, Grant, Lease};
use crate::{LockError, LockName};

/// How long an acquire is tried again after its answer was lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Locks in a Redis server or cluster. See the [module](super).
pub struct RedisBackend {
    client: Arc<Client>,
}

impl RedisBackend {
    /// Connects with the defaults: `redis://[user][:password@]host[:port][/database]`, `rediss://`,
    /// `valkey://`, `unix:///path`, or `host:6379,password=..,user=..,ssl=true,defaultDatabase=1`.
    ///
    /// # Errors
    ///
    /// As [`RedisBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is left behind.
    pub async fn connect(connection_string: &str) -> Result<Self, LockError> {
        Self::builder(connection_string).connect().await
    }

    /// Connects to the server of a client that there is, with the defaults and connections of its
    /// own.
    ///
    /// # Errors
    ///
    /// As [`RedisBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is left behind.
    pub async fn from_client(client: &::redis::Client) -> Result<Self, LockError> {
        Self::builder_from_client(client).connect().await
    }

    /// Chooses more than where the server is.
    pub fn builder(connection_string: &str) -> RedisBuilder {
        RedisBuilder::parse(connection_string)
    }

    /// Chooses more than the server of a client that there is.
    pub fn builder_from_client(client: &::redis::Client) -> RedisBuilder {
        RedisBuilder::client(client)
    }

    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    fn shared(&self) -> &Shared {
        &self.client.0
    }

    fn acquire(&self, name: &LockName) -> (Command, oneshot::Receiver<Answer>) {
        let shared = self.shared();
        let (reply, answer) = oneshot::channel();
        let acquire = Acquire {
            client: Arc::clone(&self.client),
            key: Key::new(&shared.settings.namespace, name),
            owner: shared.new_owner(),
            reply,
            until: shared.clock.now() + PATIENCE,
            ghost: None,
        };
        (Command::Acquire(acquire), answer)
    }
}

/// The thread is gone, and with it every lock.
fn ended<E>(_: E) -> LockError {
    LockError::unavailable("the thread of the Redis backend has ended")
}

impl Backend for RedisBackend {
    type Grant = RedisGrant;

    const KIND: &'static str = "redis";

    async fn try_acquire(&self, name: &LockName) -> Answer {
        let (command, answer) = self.acquire(name);
        self.shared().inbox.push(command);
        answer.await.map_err(ended)?
    }

    async fn try_acquire_many(
        &self,
        names: &[LockName],
        limit: usize,
    ) -> Result<Vec<(usize, RedisGrant)>, LockError> {
        let mut granted = Vec::new();
        let mut rest = names.iter().enumerate();
        while granted.len() < limit {
            // No more than are wanted: what is granted beyond would be held for a moment.
            let (commands, answers): (Vec<_>, Vec<_>) = rest
                .by_ref()
                .take(limit - granted.len())
                .map(|(position, name)| {
                    let (command, answer) = self.acquire(name);
                    (command, (position, answer))
                })
                .unzip();
            if commands.is_empty() {
                break;
            }
            self.shared().inbox.push_all(commands.into_iter());
            for (position, answer) in answers {
                if let Attempt::Granted(grant) = answer.await.map_err(ended)?? {
                    granted.push((position, grant));
                }
            }
        }
        Ok(granted)
    }

    fn changed(&self, name: &LockName) -> impl Future<Output = ()> + Send + 'static {
        let shared = &self.client.0;
        let key = Key::new(&shared.settings.namespace, name);
        super::waiting::register(Arc::clone(shared), key)
    }

    async fn health(&self) -> Result<(), LockError> {
        let (probe, mut answers) = mpsc::unbounded_channel();
        self.shared().inbox.push(Command::Probe(probe));
        let mut answered = false;
        while let Some(answer) = answers.recv().await {
            answer?;
            answered = true;
        }
        if answered { Ok(()) } else { Err(ended(())) }
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("settings", &self.shared().settings)
            .finish_non_exhaustive()
    }
}

/// A lock that is held in Redis. Dropping it starts the release.
pub struct RedisGrant {
    client: Arc<Client>,
    key: Key,
    owner: Owner,
    token: u64,
    lease: Lease,
    released: bool,
}

impl RedisGrant {
    pub(super) fn new(acquire: &Acquire, token: u64, lease: Lease) -> Self {
        Self {
            client: Arc::clone(&acquire.client),
            key: acquire.key.clone(),
            owner: acquire.owner,
            token,
            lease,
            released: false,
        }
    }

    fn start_release(&mut self, reply: Option<oneshot::Sender<Result<(), LockError>>>) {
        if std::mem::replace(&mut self.released, true) {
            return;
        }
        let shared = &self.client.0;
        // The renewals stop with the release.
        shared.held.remove(self.owner);
        shared.inbox.push(Command::Release(Release {
            key: self.key.clone(),
            owner: self.owner,
            reply: reply.map(|reply| (reply, self.lease.clone())),
            until: shared.clock.now() + shared.settings.lease,
            sent_before: false,
            ghost: None,
        }));
    }
}

impl Grant for RedisGrant {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    async fn release(mut self) -> Result<(), LockError> {
        let (reply, answer) = oneshot::channel();
        self.start_release(Some(reply));
        drop(self);
        answer.await.map_err(ended)?
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        ready(match self.lease.reason() {
            None => Ok(self.token),
            Some(reason) => Err(LockError::lost(reason.to_string())),
        })
    }
}

impl Drop for RedisGrant {
    fn drop(&mut self) {
        self.start_release(None);
    }
}

impl fmt::Debug for RedisGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisGrant")
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}
