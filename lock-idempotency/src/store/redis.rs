//! Records in a Redis server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lock_core::LockError;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{RedisError, RedisResult};

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
///   runs again. [`connect`](Self::connect) refuses one that evicts.
/// - Lifetimes are counted by the clock of the server.
/// - One round trip for each look (`GETEX`, and a `SETRANGE` of nothing), one `SET .. PX .. NX` for each record, of
///   Redis 6.2 or newer. A look is a write for the server, and one that needs memory, though neither changes
///   anything: where no record could be stored (a replica, a memory that is full), no handler runs, and requests
///   are answered 503. Records that are there are replayed all the same.
/// - What its user needs: `ACL SETUSER app ~lock-idempotency:* +getex +set +setrange`, with your prefix, and `+info`
///   for `connect` to see what it connects to.
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
    /// [`Misconfigured`](lock_core::LockErrorKind::Misconfigured) when the string is wrong, and when the server
    /// says that it evicts keys, is a replica or a node of a cluster;
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
        let mut connection = connection.map_err(refused)?;
        match redis::cmd("INFO")
            .query_async::<String>(&mut connection)
            .await
        {
            Ok(info) => judge(&info)?,
            // A user without the right to ask is let through: `new` does not ask either.
            Err(error) if error.code() == Some("NOPERM") || is_unknown(&error) => {}
            Err(error) => return Err(refused(error)),
        }
        Ok(Self::new(connection))
    }
}

/// Refuses a server that would forget records, or cannot store them.
fn judge(info: &str) -> Result<(), LockError> {
    let field = |name: &str| {
        let mut lines = info
            .lines()
            .filter_map(|line| line.trim_end().split_once(':'));
        lines.find_map(|(key, value)| (key == name).then_some(value))
    };
    if field("cluster_enabled") == Some("1") {
        return Err(node_of_a_cluster());
    }
    if field("role").is_some_and(|role| role != "master") {
        return Err(LockError::misconfigured(
            "the Redis server of the idempotency keys is a read-only replica; connect to its master, by a name \
             that follows it in a fail-over",
        ));
    }
    match field("maxmemory_policy") {
        None | Some("noeviction") => Ok(()),
        Some(policy) => Err(LockError::misconfigured(format!(
            "the Redis server of the idempotency keys evicts keys when its memory is full (`maxmemory-policy` is \
             `{policy}`), and a request whose record is gone runs again: set it to `noeviction`, or give \
             `RedisStore::new` a connection, which takes the server as it is"
        ))),
    }
}

fn node_of_a_cluster() -> LockError {
    LockError::misconfigured(
        "the Redis server of the idempotency keys is a node of a cluster; give `RedisStore::new` a connection of \
         the driver's `cluster::ClusterClient`",
    )
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

impl<C> IdempotencyStore for RedisStore<C>
where
    C: ConnectionLike + Clone + Send + Sync + 'static,
{
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, LockError> {
        let key = self.key(key);
        let mut look = redis::pipe();
        // Without an option it changes nothing, and is refused where nothing can be changed.
        look.cmd("GETEX").arg(&key);
        // Nothing written over nothing: refused where the memory is full, as the record would be.
        look.cmd("SETRANGE").arg(&key).arg(0).arg("");
        look.ignore_errors();
        let mut connection = self.connection.clone();
        let (found, has_room): Look = look.query_async(&mut connection).await.map_err(refused)?;
        match found.map_err(refused)? {
            Some(record) => Record::decode(record).map(Some),
            None => has_room.map(|_| None).map_err(refused),
        }
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
        let mut connection = self.connection.clone();
        let stored: Option<String> = set.query_async(&mut connection).await.map_err(refused)?;
        Ok(stored.is_some())
    }
}

/// What is stored, and whether more could be.
type Look = (RedisResult<Option<Vec<u8>>>, RedisResult<u64>);

/// Whether the server does not have the command.
fn is_unknown(error: &RedisError) -> bool {
    error.to_string().contains("unknown command")
}

fn refused(error: RedisError) -> LockError {
    let says = match error.code() {
        Some("NOPERM") => LockError::misconfigured(
            "the user of the Redis server needs rights to the idempotency keys; run, for the user in place of \
             `app` and with the prefix of the store: ACL SETUSER app ~lock-idempotency:* +getex +set +setrange",
        ),
        Some("NOAUTH" | "WRONGPASS") => LockError::misconfigured(
            "the Redis server of the idempotency keys refused the user or the password; correct them",
        ),
        Some("MOVED" | "ASK" | "CROSSSLOT") => node_of_a_cluster(),
        Some("READONLY") => LockError::unavailable(
            "the Redis server of the idempotency keys is a read-only replica; connect to its master",
        ),
        Some("OOM") => LockError::unavailable(
            "the memory of the Redis server of the idempotency keys is full, and it keeps no more; give it more \
             (`maxmemory`)",
        ),
        _ if is_unknown(&error) => LockError::misconfigured(
            "the Redis server of the idempotency keys does not have the command `GETEX`; use Redis 6.2 or newer",
        ),
        _ => LockError::unavailable(
            "the server of the idempotency keys did not answer, or refused; see the source",
        ),
    };
    says.with_source(error)
}

impl<C> fmt::Debug for RedisStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
