//! Records in a Redis server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lock_core::LockError;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, FromRedisValue, RedisError};

use crate::{IdempotencyStore, Record, RecordKey};

/// What keys begin with where nothing else is said.
const PREFIX: &str = "lock-idempotency:";

/// The longest lifetime that Redis is given: a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Keeps records in a Redis server, each a key that expires with its lifetime. Clones share the connection.
///
/// ```no_run
/// use lock_core::{LockError, LockProvider};
/// use lock_idempotency::{IdempotencyLayer, RedisStore};
///
/// # #[derive(Clone)] struct Account(String);
/// async fn layer(locks: LockProvider) -> Result<IdempotencyLayer, LockError> {
///     let store = RedisStore::connect("redis://127.0.0.1/").await?;
///     IdempotencyLayer::new(locks, store, |parts| Some(parts.extensions.get::<Account>()?.0.clone()))
/// }
/// ```
///
/// - A record lives as long as Redis keeps it: a server that evicts (`maxmemory-policy` other than
///   `noeviction`), restarts without persistence, or fails over asynchronously forgets records, and a retry
///   runs again.
/// - Lifetimes are counted by the clock of the server.
/// - One `GET` for each look, one `SET .. PX .. NX` for each record.
#[derive(Clone)]
pub struct RedisStore<C = ConnectionManager> {
    connection: C,
    prefix: Arc<str>,
}

impl RedisStore {
    /// Connects to the server of this connection string, in the forms that
    /// [`RedisBackend::connect`](lock_core::redis::RedisBackend::connect) takes, and again when the connection
    /// breaks. For a cluster or Sentinels see [`new`](Self::new).
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](lock_core::LockErrorKind::Misconfigured) when the string is wrong,
    /// [`Unavailable`](lock_core::LockErrorKind::Unavailable) when the server does not answer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn connect(url: &str) -> Result<Self, LockError> {
        let client = lock_core::redis::client(url)?;
        // An outage is answered, and not waited for: each request tries anew.
        let config = ConnectionManagerConfig::new().set_number_of_retries(1);
        let connection = ConnectionManager::new_with_config(client, config).await;
        Ok(Self::new(connection.map_err(refused)?))
    }
}

impl<C> RedisStore<C> {
    /// Uses this connection: of a server or a cluster, as the driver makes them.
    #[must_use]
    pub fn new(connection: C) -> Self {
        let prefix = PREFIX.into();
        Self { connection, prefix }
    }

    /// What keys begin with; two applications on one server have different ones.
    ///
    /// # Default
    ///
    /// `lock-idempotency:`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    fn key(&self, key: &RecordKey) -> String {
        format!("{}{key}", self.prefix)
    }
}

impl<C> RedisStore<C>
where
    C: ConnectionLike + Clone + Send + Sync + 'static,
{
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LockError> {
        let mut connection = self.connection.clone();
        command.query_async(&mut connection).await.map_err(refused)
    }
}

impl<C> IdempotencyStore for RedisStore<C>
where
    C: ConnectionLike + Clone + Send + Sync + 'static,
{
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, LockError> {
        let found: Option<Vec<u8>> = self.ask(&Cmd::get(self.key(key))).await?;
        found.map(Record::decode).transpose()
    }

    async fn put(
        &self,
        key: &RecordKey,
        record: &Record,
        lifetime: Duration,
    ) -> Result<bool, LockError> {
        // Redis takes no lifetime of nothing.
        let millis = lifetime.min(LONGEST).as_millis().max(1);
        let mut set = redis::cmd("SET");
        set.arg(self.key(key)).arg(&record.encode()[..]);
        set.arg("PX").arg(millis.to_string()).arg("NX");
        let stored: Option<String> = self.ask(&set).await?;
        Ok(stored.is_some())
    }
}

fn refused(error: RedisError) -> LockError {
    LockError::unavailable(
        "the server of the idempotency keys did not answer, or refused; see the source",
    )
    .with_source(error)
}

impl<C> fmt::Debug for RedisStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
