//! The backend: what it asks of the driver.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Postgres, Transaction};
use tokio::time::Instant;

use super::KIND;
use super::errors;
use super::held::{Client, PostgresGrant};
use super::key::{AdvisoryKey, Keys};
use super::key_scheme::{KeyScheme, Names};
use super::shared::{Request, Shared};
use super::transaction;
use crate::backend::{Attempt, Backend, LockRequest, Providers};
use crate::server::Reply;
use crate::{Holder, Listing, LockError, LockName, oneshot};

/// Locks in a PostgreSQL server: see the [module](super). Clones share one session: keep one for
/// [`lock_in_transaction`](Self::lock_in_transaction), and give another to the provider.
#[derive(Clone)]
pub struct PostgresBackend {
    shared: Arc<Shared>,
    client: Arc<Client>,
    names: Names,
    /// What its session is called by operators.
    instance: Arc<str>,
    providers: Providers,
}

impl PostgresBackend {
    pub(super) fn new(
        shared: Arc<Shared>,
        client: Arc<Client>,
        names: Names,
        instance: Arc<str>,
    ) -> Self {
        Self {
            shared,
            client,
            names,
            instance,
            providers: Providers::default(),
        }
    }

    /// Takes a lock in a transaction of yours, in the same database: it is held until that transaction
    /// ends, with its commit, its rollback or the end of its connection. It excludes guards of the
    /// same name, and is excluded by them.
    ///
    /// - **READ COMMITTED only.** Under REPEATABLE READ and SERIALIZABLE a transaction goes on seeing
    ///   what was there before its wait, and not what the holder did.
    /// - It waits for up to `wait`, in the server; zero tries once. The connection is busy meanwhile: where as
    ///   many transactions wait as the pool has connections, a holder that needs a second one waits for
    ///   them, until their waits are over. Do what it needs on its own connection, or before.
    /// - The transaction can take it again immediately, and as many others as it wants, in one order
    ///   everywhere. `ROLLBACK TO` a savepoint gives back what was locked after it.
    /// - The settings of the transaction are as they were, whatever the answer, and it can go on after
    ///   a refusal. A `statement_timeout` that is shorter than `wait` ends the wait.
    /// - It excludes guards of its own task as well: a transaction that waits for a lock of which its task
    ///   has a guard waits for itself, until `wait` is over, and so does the other way round. The
    ///   [watch](crate::LockProviderBuilder::lock_order_watch) reports the first.
    /// - Its end wakes no waiter: guards that wait behind it notice within some tenths of a second.
    /// - It keeps no [readers](crate::DistributedLock::shared) out while it waits: those of one process that overlap
    ///   can be before it for the whole wait.
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
    /// database or server than the backend's, an ended transaction.
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
        let Some(home) = self.shared.home() else {
            return Err(self.client.gone().with_lock(name));
        };
        let locked = transaction::lock_in_transaction(tx, name, self.keys(name), &home, wait).await;
        locked.map_err(|error| error.with_lock(name))
    }

    /// The key that the holder of this lock holds on the server, for programs that take it without this
    /// library, and to find it in `pg_locks`.
    pub fn advisory_key(&self, name: &LockName) -> AdvisoryKey {
        self.keys(name).key()
    }

    fn keys(&self, name: &LockName) -> Keys {
        self.names.keys(name)
    }

    /// Leaves a request and waits for the answer.
    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, LockError> {
        let (reply, answer) = oneshot::channel();
        self.shared.queues.requests.push(request(reply));
        self.client.answered(answer).await
    }
}

impl Backend for PostgresBackend {
    type Grant = PostgresGrant;

    const KIND: &'static str = KIND;
    const SHARED: bool = true;

    async fn try_acquire(
        &self,
        request: &LockRequest,
    ) -> Result<Attempt<PostgresGrant>, LockError> {
        let keys = self.keys(request.name());
        if request.is_shared() {
            if self.names.scheme != KeyScheme::default() {
                return Err(errors::no_readers());
            }
            if let Some(grant) = self.shared.readers.take_valid(&keys.lock) {
                return Ok(Attempt::Granted(grant));
            }
            return self.ask(|reply| Request::Read { keys, reply }).await;
        }
        // What the driver has acquired for the waiters.
        if let Some(grant) = self.shared.waiters.take_valid(&keys.lock)
            // A pair and a bigint of the same bits are two locks: the other one goes back. A process that waits
            // for both may get neither in time; only names that are numbers can be such.
            && grant.key() == keys.key()
        {
            return Ok(Attempt::Granted(grant));
        }
        self.ask(|reply| Request::Try { keys, reply }).await
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
        let asked = Instant::now();
        self.ask(|reply| Request::Claim {
            keys,
            limit,
            asked,
            reply,
        })
        .await
    }

    fn changed(&self, request: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        let keys = self.keys(request.name());
        let waiters = match request.is_shared() {
            true => &self.shared.readers,
            false => &self.shared.waiters,
        };
        waiters.register(keys.lock, keys)
    }

    async fn holder(&self, name: &LockName) -> Result<Option<Holder>, LockError> {
        let keys = self.keys(name);
        self.ask(|reply| Request::Holder { keys, reply }).await
    }

    async fn list(&self, limit: usize) -> Result<Listing, LockError> {
        let held = self.ask(|reply| Request::List { limit, reply }).await?;
        Ok(Listing::new(held, limit))
    }

    fn instance(&self) -> Option<String> {
        Some((*self.instance).to_owned())
    }

    async fn health(&self) -> Result<(), LockError> {
        self.ask(|reply| Request::Health { reply }).await
    }

    fn providers(&self) -> Option<&Providers> {
        Some(&self.providers)
    }

    async fn close(&self) {
        self.client.stop();
        self.client.finished().await;
    }
}

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackend")
            .field("namespace", &self.names.namespace)
            .field("keys", &self.names.scheme)
            .finish_non_exhaustive()
    }
}
