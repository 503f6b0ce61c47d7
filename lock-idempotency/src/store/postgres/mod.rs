//! Records in a table of a PostgreSQL database.

mod errors;
mod sql;
mod store_in;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lock_core::LockError;
use sqlx::{AssertSqlSafe, PgExecutor, PgPool, Row};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::{IdempotencyStore, Record, RecordKey};
use errors::{not_created, refused};
use sql::{BATCH, Table};
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
/// - One statement for each look and each record, by the simple protocol: it works behind a transaction pooler
///   (PgBouncer, RDS Proxy, Supavisor), and prepares nothing.
/// - Lifetimes are counted by the clock of the server. A step of it forward ends records early: keep the
///   lifetime longer than a clock can be wrong.
/// - What has ended is never replayed. It is deleted in the background, 1,000 rows at a time, by the instances
///   that store: each looks every minute. [`clean_up`](Self::clean_up) does it where nothing is stored.
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

    /// Connects to the database at this URL, with a pool of its own, and makes the table when there is none.
    ///
    /// # Errors
    ///
    /// As [`from_pool`](Self::from_pool), and [`Misconfigured`](lock_core::LockErrorKind::Misconfigured) when
    /// the URL is none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves either the whole table or none.
    pub async fn connect(url: &str) -> Result<Self, LockError> {
        let options = url.parse().map_err(|_| {
            LockError::misconfigured(
                "the address of the store of idempotency keys is no `postgres://` URL",
            )
        })?;
        Self::from_pool(PgPool::connect_lazy_with(options)).await
    }

    /// Uses the connections of this pool, and makes the table in the first schema of its `search_path` when
    /// there is none.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](lock_core::LockErrorKind::Misconfigured), with the SQL, when the role may not create
    /// the table; [`Unavailable`](lock_core::LockErrorKind::Unavailable) when the server does not answer.
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
        // A role without the right to create is right where the table is there.
        let found = run(&pool, table.look_for()).await.map_err(refused)?;
        let is_there = found.first().map_or(Ok(false), |row| row.try_get(0));
        if !is_there.map_err(refused)? {
            let made = run(&pool, table.create()).await;
            made.map_err(|error| not_created(error, &table))?;
        }
        Ok(Self {
            pool,
            table: Arc::new(table),
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
            let sql = AssertSqlSafe(self.table.clean_up());
            let deleted = sqlx::raw_sql(sql).execute(&self.pool).await;
            let deleted = deleted.map_err(refused)?.rows_affected();
            total += deleted;
            if deleted < BATCH {
                return Ok(total);
            }
        }
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
async fn run(
    executor: impl PgExecutor<'_>,
    sql: String,
) -> Result<Vec<sqlx::postgres::PgRow>, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(executor).await
}

/// The record in the first column, if there is a row.
fn record(rows: &[sqlx::postgres::PgRow]) -> Result<Option<Record>, LockError> {
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let bytes: Vec<u8> = row.try_get(0).map_err(refused)?;
    Record::decode(bytes).map(Some)
}

impl IdempotencyStore for PostgresStore {
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, LockError> {
        let rows = run(&self.pool, self.table.get(key)).await;
        record(&rows.map_err(refused)?)
    }

    async fn put(
        &self,
        key: &RecordKey,
        record: &Record,
        lifetime: Duration,
    ) -> Result<bool, LockError> {
        let rows = run(&self.pool, self.table.put(key, record, lifetime, None)).await;
        let is_stored = !rows.map_err(refused)?.is_empty();
        self.tidy();
        Ok(is_stored)
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("table", &self.table.name())
            .finish_non_exhaustive()
    }
}
