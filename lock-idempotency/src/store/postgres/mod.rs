//! Records in a table of a PostgreSQL database.

mod errors;
mod sql;
mod store_in;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use data_encoding::HEXLOWER;
use lock_core::LockError;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, PgPool, Row};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::{IdempotencyStore, Record, RecordKey};
use errors::read_only;
use sql::{BATCH, BEGIN, Table};
pub use store_in::StoreInError;

/// How often an instance removes what has ended.
const CLEANED_EVERY: Duration = Duration::from_secs(60);

/// Keeps records in the table `distributed_lock_idempotency` of a PostgreSQL database. Clones are the same
/// store.
///
/// ```no_run
/// use lock_core::{LockError, LockProvider};
/// use lock_idempotency::{IdempotencyLayer, PostgresStore};
/// use sqlx::PgPool;
///
/// # #[derive(Clone)] struct Account(String);
/// async fn layer(locks: LockProvider, pool: PgPool) -> Result<IdempotencyLayer, LockError> {
///     let store = PostgresStore::from_pool(pool).await?;
///     IdempotencyLayer::new(locks, store, |parts| Some(parts.extensions.get::<Account>()?.0.clone()))
/// }
/// ```
///
/// - The table is made when there is none. A role that may not create tables gets an error that has the SQL,
///   which is [`MIGRATION`](Self::MIGRATION).
/// - One statement for each look, and a transaction of its own for each record: it works behind a transaction
///   pooler (PgBouncer, RDS Proxy, Supavisor), and prepares nothing that stays. Records are parameters of
///   statements, whose text the driver logs.
/// - A server where nothing can be stored (a standby, a read-only role) is down: requests are answered 503.
/// - Services that share a table share its keys, too: give each a [schema](Self::in_schema), or write its name
///   into the scope.
/// - Lifetimes are counted by the clock of the server. A step of it forward ends records early: keep the
///   lifetime longer than a clock can be wrong.
/// - What has ended is never replayed. It is deleted in the background, 1,000 rows at a time, by the instances
///   that have requests with keys: each looks every minute. [`clean_up`](Self::clean_up) does it where there are
///   none.
/// - A table that is asynchronously replicated can lose records of the last moments in a fail-over, and with
///   them effects of the same database.
#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
    table: Arc<Table>,
    /// When this instance cleaned up last.
    cleaned: Arc<Mutex<Instant>>,
}

impl PostgresStore {
    /// The table that it needs, for your migrations. Running it again does nothing.
    ///
    /// Roles that use the store need SELECT, INSERT, UPDATE and DELETE on it.
    pub const MIGRATION: &str = sql::MIGRATION;

    /// Connects to the database at this URL, with a pool of its own, and makes the table when there is none. The
    /// URL is read, and TLS is warned of, as that of the
    /// [locks](lock_core::postgres::PostgresBackend::connect).
    ///
    /// # Errors
    ///
    /// As [`from_pool`](Self::from_pool), and [`Misconfigured`](lock_core::LockErrorKind::Misconfigured) when
    /// the URL is wrong.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves either the whole table or none.
    pub async fn connect(url: &str) -> Result<Self, LockError> {
        let options = lock_core::postgres::connect_options(url)?;
        Self::from_pool(PgPool::connect_lazy_with(options)).await
    }

    /// Uses the connections of this pool, and makes the table in the first schema of its `search_path` when
    /// there is none. The store stays with the schema that it has found then, whatever the `search_path` of a session
    /// is later.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](lock_core::LockErrorKind::Misconfigured), with the SQL, when the role may not create
    /// the table or lacks a right to it, and when a table of this name is another;
    /// [`Unavailable`](lock_core::LockErrorKind::Unavailable) when the server does not answer, or is read-only.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves either the whole table or none.
    pub async fn from_pool(pool: PgPool) -> Result<Self, LockError> {
        Self::open(pool, Table::new(None)?).await
    }

    /// The same with the table in this schema, whatever the `search_path` is. The schema must exist.
    ///
    /// # Errors
    ///
    /// As [`from_pool`](Self::from_pool).
    ///
    /// # Cancel safety
    ///
    /// As [`from_pool`](Self::from_pool).
    pub async fn in_schema(pool: PgPool, schema: &str) -> Result<Self, LockError> {
        Self::open(pool, Table::new(Some(schema))?).await
    }

    async fn open(pool: PgPool, table: Table) -> Result<Self, LockError> {
        let refused = |error| table.refused(error);
        // A role without the right to create is right where the table is there.
        let looked = run(&pool, table.look_for()).await.map_err(refused)?;
        let found = match located(&looked).map_err(refused)? {
            Some(found) => found,
            None => {
                let made = run(&pool, table.create()).await;
                made.map_err(|error| table.not_created(error))?;
                // In a transaction of its own: a strict one does not see what another process made while it waited.
                let looked = run(&pool, table.look_for()).await.map_err(refused)?;
                let made = located(&looked).map_err(refused)?;
                made.ok_or_else(|| table.not_found())?
            }
        };
        // What can be read and not written is no store: each handler would run again.
        run(&pool, found.rehearse()).await.map_err(refused)?;
        Ok(Self {
            pool,
            table: Arc::new(found),
            cleaned: Arc::new(Mutex::new(Instant::now())),
        })
    }

    /// Deletes the records that have ended, 1,000 at a time, and says how many. Any number of instances may do
    /// so at the same time: none waits for another.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](lock_core::LockErrorKind::Unavailable) when the server does not answer,
    /// [`Misconfigured`](lock_core::LockErrorKind::Misconfigured) when the role lacks a right.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the cleaning; what was deleted stays so.
    pub async fn clean_up(&self) -> Result<u64, LockError> {
        let mut total = 0;
        loop {
            let deleted = self.clean_some().await;
            let deleted = deleted.map_err(|error| self.table.refused(error))?;
            total += deleted;
            if deleted < BATCH {
                return Ok(total);
            }
        }
    }

    async fn clean_some(&self) -> Result<u64, sqlx::Error> {
        let mut tx = self.pool.begin_with(BEGIN).await?;
        let deleted = sqlx::raw_sql(AssertSqlSafe(self.table.clean_up()));
        let deleted = deleted.execute(&mut *tx).await?.rows_affected();
        tx.commit().await?;
        Ok(deleted)
    }

    async fn store(
        &self,
        key: &RecordKey,
        record: &Record,
        lifetime: Duration,
    ) -> Result<bool, sqlx::Error> {
        let mut tx = self.pool.begin_with(BEGIN).await?;
        let is_stored = put(&mut tx, self.table.put(key, lifetime, None), record).await?;
        tx.commit().await?;
        Ok(is_stored)
    }

    /// Cleans up in the background, where that is due.
    fn tidy(&self) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let now = Instant::now();
        let mut cleaned = self.cleaned.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(*cleaned) < CLEANED_EVERY {
            return;
        }
        *cleaned = now;
        let store = self.clone();
        runtime.spawn(async move {
            match store.clean_up().await {
                Ok(0) => {}
                Ok(records) => tracing::debug!(records, "idempotency records that had ended were deleted"),
                Err(error) => {
                    tracing::warn!(%error, "idempotency records that have ended are not deleted now");
                }
            }
        });
    }
}

/// Runs one text of SQL, whose every literal is ours.
async fn run(executor: impl PgExecutor<'_>, sql: String) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(executor).await
}

/// The table, with the schema that the last row names: other sessions can have another `search_path`.
fn located(rows: &[PgRow]) -> Result<Option<Table>, sqlx::Error> {
    let schema: Option<&str> = match rows.last() {
        Some(row) => row.try_get(0)?,
        None => None,
    };
    Ok(schema.map(Table::in_schema))
}

/// Stores the record in the transaction of this connection; `false` when there is one.
async fn put(
    connection: &mut PgConnection,
    sql: String,
    record: &Record,
) -> Result<bool, sqlx::Error> {
    // Without a name: a pooler may know it from another client.
    let put = sqlx::query(AssertSqlSafe(sql)).persistent(false);
    let stored = put.bind(&record.encode()[..]);
    Ok(stored.fetch_optional(connection).await?.is_some())
}

impl Table {
    /// The record of this key, if there is one.
    async fn find(
        &self,
        executor: impl PgExecutor<'_>,
        key: &RecordKey,
    ) -> Result<Option<Record>, LockError> {
        let refused = |error| self.refused(error);
        let look = sqlx::raw_sql(AssertSqlSafe(self.get(key)));
        let row = look.fetch_one(executor).await.map_err(refused)?;
        let digits: Option<&str> = row.try_get(0).map_err(refused)?;
        match digits {
            // What are no digits is no record.
            Some(digits) => {
                let bytes = HEXLOWER.decode(digits.as_bytes()).unwrap_or_default();
                Record::decode(bytes).map(Some)
            }
            None if row.try_get(1).map_err(refused)? => Err(read_only()),
            None => Ok(None),
        }
    }
}

impl IdempotencyStore for PostgresStore {
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, LockError> {
        let found = self.table.find(&self.pool, key).await?;
        self.tidy();
        Ok(found)
    }

    async fn put(
        &self,
        key: &RecordKey,
        record: &Record,
        lifetime: Duration,
    ) -> Result<bool, LockError> {
        let is_stored = self.store(key, record, lifetime).await;
        is_stored.map_err(|error| self.table.refused(error))
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("table", &self.table.name())
            .finish_non_exhaustive()
    }
}
