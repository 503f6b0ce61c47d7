//! The backend and its grants: what they ask of the driver.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::oneshot;

use super::KIND;
use super::builder::PostgresBuilder;
use super::desk::{Command, Handle, Hold, Reply};
use super::transaction;
use crate::backend::{Attempt, Backend, Grant, Lease, LockRequest, Providers};
use crate::name::key::{PostgresKeys, postgres_keys};
use crate::server::Board;
use crate::{LockError, LockName};

/// Locks in a PostgreSQL server: see the [module](super). Clones share one session: keep one for
/// [`lock_in_transaction`](Self::lock_in_transaction), and give another to the provider.
#[derive(Clone)]
pub struct PostgresBackend {
    handle: Arc<Handle>,
    namespace: Box<str>,
    providers: Providers,
}

impl PostgresBackend {
    pub(super) fn new(handle: Arc<Handle>, namespace: Box<str>) -> Self {
        Self {
            handle,
            namespace,
            providers: Providers::default(),
        }
    }

    /// Connects to the server of this URL, `postgres://user:password@host:port/database`, with the
    /// defaults of [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// As [`PostgresBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// As [`PostgresBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Self, LockError> {
        Self::builder(url).connect().await
    }

    /// Connects to the server of this pool, with the defaults of
    /// [`builder_from_pool`](Self::builder_from_pool): with the pool's options, over a connection of
    /// its own.
    ///
    /// # Errors
    ///
    /// As [`PostgresBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// As [`PostgresBuilder::connect`].
    pub async fn from_pool(pool: &PgPool) -> Result<Self, LockError> {
        Self::builder_from_pool(pool).connect().await
    }

    /// How to connect to the server of this URL.
    pub fn builder(url: impl Into<String>) -> PostgresBuilder {
        PostgresBuilder::from_url(url.into())
    }

    /// How to connect to the server of this pool. The pool's connections are left alone: a lock lives
    /// on its session, and a pool hands its sessions around. Each session is made with the options that
    /// the pool has then: a password that `PgPool::set_connect_options` has set is used by the next one.
    /// The backend keeps a handle of the pool, also after it was closed, until the backend is closed.
    pub fn builder_from_pool(pool: &PgPool) -> PostgresBuilder {
        PostgresBuilder::from_pool(pool.clone())
    }

    /// Takes a lock in a transaction of yours, in the same database: it is held until that transaction
    /// ends, with its commit, its rollback or the end of its connection. It excludes guards of the
    /// same name, and is excluded by them.
    ///
    /// - **READ COMMITTED only.** Under REPEATABLE READ and SERIALIZABLE a transaction goes on seeing
    ///   what was there before its wait, and not what the holder did.
    /// - It waits for up to `wait`, in the server; zero tries once. The connection is busy meanwhile.
    /// - The transaction can take it again at once, and as many others as it wants, in one order
    ///   everywhere. `ROLLBACK TO` a savepoint gives back what was locked after it.
    /// - The settings of the transaction are as they were, whatever the answer, and it can go on after
    ///   a refusal. A `statement_timeout` that is shorter than `wait` ends the wait.
    /// - It excludes guards of its own task as well: a transaction that waits for a lock of which its task
    ///   has a guard waits for itself, until `wait` is over, and so does the other way round. The
    ///   [watch](crate::LockProvider::watch_lock_order) reports the first.
    /// - Its end wakes nobody: guards that wait behind it notice within some tenths of a second.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockName, postgres::PostgresBackend};
    /// # async fn f(backend: &PostgresBackend, pool: &sqlx::PgPool)
    /// #     -> Result<(), Box<dyn std::error::Error>> {
    /// let name = LockName::new("invoice", "number", 2026)?;
    /// let mut tx = pool.begin().await?;
    /// backend.lock_in_transaction(&mut tx, &name, Duration::from_secs(5)).await?;
    /// // .. read the last number, write the next ..
    /// tx.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Contended`](crate::LockErrorKind::Contended): held by another for the whole wait.
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured): another isolation level, another
    /// database or server than the backend's, a transaction that is none.
    /// [`Unavailable`](crate::LockErrorKind::Unavailable): the backend has no session now, a deadlock,
    /// a cancelled statement, a transaction that has failed before, a lost connection.
    /// [`Closed`](crate::LockErrorKind::Closed): the last provider over the backend was shut down.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: roll the transaction back when the future was dropped; dropping the transaction
    /// does that. The server goes on with the wait, and the connection is busy until it is over.
    pub async fn lock_in_transaction(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        name: &LockName,
        wait: Duration,
    ) -> Result<(), LockError> {
        let Some(home) = self.handle.home() else {
            return Err(self.handle.gone().with_lock(name));
        };
        let locked = transaction::lock_in_transaction(tx, name, self.keys(name), &home, wait).await;
        locked.map_err(|error| error.with_lock(name))
    }

    fn keys(&self, name: &LockName) -> PostgresKeys {
        postgres_keys(&self.namespace, name)
    }
}

/// Sends a command and waits for its answer. A driver that is gone gives none.
async fn ask<T>(
    handle: &Handle,
    command: impl FnOnce(Reply<T>) -> Command,
) -> Result<T, LockError> {
    let (reply, answer) = oneshot::channel();
    handle.inbox.push(command(reply));
    answer.await.unwrap_or_else(|_| Err(handle.gone()))
}

impl Backend for PostgresBackend {
    type Grant = PostgresGrant;

    const KIND: &'static str = KIND;

    async fn try_acquire(
        &self,
        request: &LockRequest,
    ) -> Result<Attempt<PostgresGrant>, LockError> {
        let keys = self.keys(request.name());
        // What the driver has taken for those who wait.
        if let Some(grant) = self.handle.board.take_parked(&keys.lock)
            && grant.lease.is_valid()
        {
            return Ok(Attempt::Granted(grant));
        }
        ask(&self.handle, |reply| Command::Try { keys, reply }).await
    }

    async fn try_acquire_many(
        &self,
        requests: &[LockRequest],
        limit: usize,
    ) -> Result<Vec<(usize, PostgresGrant)>, LockError> {
        let keys = requests
            .iter()
            .map(|request| self.keys(request.name()))
            .collect();
        ask(&self.handle, |reply| Command::Claim { keys, limit, reply }).await
    }

    fn changed(&self, request: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        let keys = self.keys(request.name());
        Board::watch(Arc::clone(&self.handle), keys.lock, keys)
    }

    async fn health(&self) -> Result<(), LockError> {
        ask(&self.handle, |reply| Command::Health { reply }).await
    }

    fn providers(&self) -> Option<&Providers> {
        Some(&self.providers)
    }

    async fn close(&self) {
        self.handle.close().await;
    }
}

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackend")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// A lock that is held in PostgreSQL.
pub struct PostgresGrant {
    handle: Arc<Handle>,
    hold: Hold,
    pub(super) lease: Lease,
    is_released: bool,
}

impl PostgresGrant {
    pub(super) fn new(handle: Arc<Handle>, hold: Hold, lease: Lease) -> Self {
        Self {
            handle,
            hold,
            lease,
            is_released: false,
        }
    }

    /// Starts the release, once.
    fn start_release(&mut self, reply: Option<Reply<()>>) {
        if !std::mem::replace(&mut self.is_released, true) {
            let hold = self.hold;
            self.handle.inbox.push(Command::Release { hold, reply });
        }
    }

    fn check(&self) -> Result<(), LockError> {
        match self.lease.reason() {
            None => Ok(()),
            Some(reason) => Err(LockError::lost(reason.to_string())),
        }
    }
}

impl Grant for PostgresGrant {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    async fn release(mut self) -> Result<(), LockError> {
        self.check()?;
        let (reply, answer) = oneshot::channel();
        self.start_release(Some(reply));
        answer.await.unwrap_or_else(|_| Err(self.handle.gone()))
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        let (handle, hold) = (Arc::clone(&self.handle), self.hold);
        async move { ask(&handle, |reply| Command::Token { hold, reply }).await }
    }

    /// Each token is of a transaction of its own, which begins after it was asked for.
    fn hand_over(&mut self) -> bool {
        true
    }
}

impl Drop for PostgresGrant {
    fn drop(&mut self) {
        self.start_release(None);
    }
}

impl fmt::Debug for PostgresGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresGrant").finish_non_exhaustive()
    }
}
