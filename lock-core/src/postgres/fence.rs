//! Refusing writes of holders that have lost their lock, inside the transaction that writes.

mod found;

use std::borrow::Cow;

use sqlx::{AssertSqlSafe, Connection, PgExecutor, Postgres, SqlSafeStr, Transaction};

use self::found::{Found, look_at};
use super::in_transaction::refused;
use super::sqlstate::sqlstate;
use crate::{FencingToken, LockError, LockGuard, LockName, plain_text};

/// Checks fencing tokens in a transaction: refuses a holder when a later one has already written.
///
/// A process can be frozen between its last look at the lock and its write, for longer than the
/// lock lasts. Only the storage can stop that write, by the [token](FencingToken) that comes with
/// it: a later holder's is greater.
///
/// # Rows that carry their fence
///
/// Where the lock stands for one row, a column of that row is all it takes. Each write tells its
/// token, and changes nothing if the row has seen a greater one:
///
/// ```no_run
/// # use lock_core::{FencingToken, LockError, LockGuard};
/// # use sqlx::PgPool;
/// // ALTER TABLE orders ADD COLUMN fence bigint NOT NULL DEFAULT 0
/// # async fn mark_paid(pool: &PgPool, guard: &LockGuard, id: i64)
/// #     -> Result<bool, Box<dyn std::error::Error>> {
/// let written = sqlx::query("UPDATE orders SET state = $1, fence = $2 WHERE id = $3 AND fence <= $2")
///     .bind("paid")
///     .bind(guard.fencing_token().await?)
///     .bind(id)
///     .execute(pool)
///     .await?;
/// if written.rows_affected() == 0 {
///     return Ok(false); // a later holder has written, or there is no such order
/// }
/// # Ok(true) }
/// ```
///
/// It needs no transaction and nothing of this type. *Every* write to the row must do it.
///
/// # Everything else
///
/// Where a lock protects several rows, several tables, inserts, or a table that gets no new column,
/// a `Fence` keeps the newest token of each lock in a table of its own,
/// `distributed_lock_fences`, made by [`MIGRATION`](Self::MIGRATION):
///
/// ```no_run
/// # use lock_core::{LockGuard, postgres::Fence};
/// # use sqlx::PgPool;
/// const FENCE: Fence = Fence::new();
///
/// # async fn transfer(pool: &PgPool, guard: &LockGuard, from: i64, to: i64, cents: i64)
/// #     -> Result<(), Box<dyn std::error::Error>> {
/// let mut tx = pool.begin().await?;
/// FENCE.check_guard(&mut tx, guard).await?; // first; then read, then write
/// sqlx::query("UPDATE accounts SET cents = cents - $1 WHERE id = $2")
///     .bind(cents)
///     .bind(from)
///     .execute(&mut *tx)
///     .await?;
/// sqlx::query("UPDATE accounts SET cents = cents + $1 WHERE id = $2")
///     .bind(cents)
///     .bind(to)
///     .execute(&mut *tx)
///     .await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
///
/// - **Check first.** From the check to the end of the transaction no other holder of the lock passes
///   one, so that what is read after it stays true until the commit. What was read before it does not.
/// - A rollback, also one to a savepoint from before the check, forgets the token along with what was
///   written.
/// - Of several locks check each, in one order everywhere: that of [`LockGuards`](crate::LockGuards).
/// - Put it into a [schema](Self::schema) where only your roles may create tables. Who owns the table
///   decides what it says.
/// - A table that came with a dump, or with the move to another server or provider, has greater tokens
///   than are issued now, and refuses every holder: raise the
///   [`token_epoch`](crate::postgres::PostgresBuilder::token_epoch) of the whole fleet.
/// - Work that has no token, because it takes no lock, is not stopped by it.
/// - A row stays for every name that was ever checked. Those of long ago can go, as long as no holder
///   lives that long: `DELETE FROM distributed_lock_fences WHERE checked_at < now() - interval '7 days'`.
///
/// Work inside one database that can afford to keep a transaction open needs neither: a lock taken
/// [in the transaction](crate::postgres) cannot be lost before the writes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    namespace: Cow<'static, str>,
    schema: Option<Cow<'static, str>>,
}

/// One statement, so that it is one decision: the row is locked, new or not, newer or not, until the
/// transaction ends.
macro_rules! check {
    ($table:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " AS newest (namespace, lock, token) VALUES ($1, $2, $3) \
             ON CONFLICT (namespace, lock) DO UPDATE \
             SET token = excluded.token, checked_at = excluded.checked_at \
             WHERE newest.token OPERATOR(pg_catalog.<=) excluded.token"
        )
    };
}

// Names of PostgreSQL's own are qualified: the caller's path can lead to a neighbour's first.
macro_rules! migration {
    ($table:literal) => {
        concat!(
            "CREATE TABLE IF NOT EXISTS ",
            $table,
            " (
    namespace pg_catalog.text COLLATE pg_catalog.\"C\" NOT NULL DEFAULT '',
    lock pg_catalog.text COLLATE pg_catalog.\"C\" NOT NULL,
    token bigint NOT NULL,
    checked_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (namespace, lock)
)"
        )
    };
}

const TABLE: &str = "distributed_lock_fences";
const CHECK: &str = check!("distributed_lock_fences");

/// One migration at a time: two `CREATE TABLE IF NOT EXISTS` together fail. A pair of numbers never
/// meets the key of a lock; these are arbitrary, and the same in every version.
const ALONE: &str = "SELECT pg_catalog.pg_advisory_xact_lock(1684827491, 1)";

impl Fence {
    /// The table that it needs, for your migrations. Running it again does nothing.
    ///
    /// Roles that check need SELECT, INSERT and UPDATE on it. It is made in the first schema of the
    /// `search_path` and found by that: see [`schema`](Self::schema) and
    /// [`migration`](Self::migration) for one of your choice.
    pub const MIGRATION: &str = migration!("distributed_lock_fences");

    /// The fence of locks in no namespace.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            namespace: Cow::Borrowed(""),
            schema: None,
        }
    }

    /// The same for locks in the namespace that the lock backend was given. Blanks at its ends do not
    /// count, there and here.
    ///
    /// # Default
    ///
    /// The empty one.
    #[must_use]
    pub fn namespace(self, namespace: impl Into<Cow<'static, str>>) -> Self {
        let namespace = namespace.into();
        let trimmed = plain_text::trimmed(&namespace);
        Self {
            namespace: match trimmed.len() == namespace.len() {
                true => namespace,
                false => Cow::Owned(trimmed.to_owned()),
            },
            ..self
        }
    }

    /// The same with its table in this schema, whatever the `search_path` is. In a schema where other
    /// roles may create tables (`public` before PostgreSQL 15), one of them can make the table first.
    ///
    /// ```
    /// use lock_core::postgres::Fence;
    ///
    /// let fence = Fence::new().schema("billing");
    /// assert!(fence.migration().contains(r#""billing".distributed_lock_fences"#));
    /// ```
    ///
    /// # Default
    ///
    /// The first of the `search_path` that has it.
    #[must_use]
    pub fn schema(self, schema: impl Into<Cow<'static, str>>) -> Self {
        Self {
            schema: Some(schema.into()),
            ..self
        }
    }

    /// [`MIGRATION`](Self::MIGRATION) for the schema of this fence, which must exist.
    #[must_use]
    pub fn migration(&self) -> String {
        self.in_schema(Self::MIGRATION)
    }

    /// Makes the table of this fence if there is none, by [`migration`](Self::migration), and looks
    /// whether it is what the fence needs. Any number of processes may do so at the same time.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) when the role may not create tables:
    /// then the owner of the schema must; when the schema is missing; and when the table that is there
    /// belongs to a role that could not have made it for you, or has columns, triggers or rules of its
    /// own. The owner may be this role, a superuser, or the owner of the schema or of the database.
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the server did not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves either the whole table or none.
    pub async fn create_table(&self, executor: impl PgExecutor<'_>) -> Result<(), LockError> {
        self.check_schema()?;
        let table = self.in_schema(TABLE).replace('\'', "''");
        let sql = format!("{ALONE}; {}; {}", self.migration(), look_at(&table));
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(executor).await;
        let rows = done.map_err(not_migrated)?;
        let found = rows.last().map(Found::read).transpose().map_err(refused)?;
        match found.and_then(|found| found.wrong()) {
            Some(wrong) => Err(LockError::misconfigured(wrong)),
            None => Ok(()),
        }
    }

    /// What one text of SQL is for the schema of this fence.
    fn in_schema(&self, sql: &str) -> String {
        match &self.schema {
            Some(schema) => {
                let table = format!("\"{}\".{TABLE}", schema.replace('"', "\"\""));
                sql.replace(TABLE, &table)
            }
            None => sql.to_owned(),
        }
    }

    fn check_schema(&self) -> Result<(), LockError> {
        // PostgreSQL cuts longer names off, and those that begin so are its own or end with a session.
        let is_name = |name: &str| {
            (1..=63).contains(&name.len()) && !name.contains('\0') && !name.starts_with("pg_")
        };
        if self.schema.as_deref().is_none_or(is_name) {
            return Ok(());
        }
        Err(LockError::misconfigured(
            "the schema of a fence is a name of 1 to 63 bytes that does not begin with `pg_`",
        ))
    }

    /// [`create_table`](Self::create_table) of the fence without a schema.
    ///
    /// # Errors
    ///
    /// As [`create_table`](Self::create_table).
    ///
    /// # Cancel safety
    ///
    /// As [`create_table`](Self::create_table).
    pub async fn migrate(executor: impl PgExecutor<'_>) -> Result<(), LockError> {
        Self::new().create_table(executor).await
    }

    /// Refuses a token that is older than the newest one which a committed transaction has shown for
    /// this lock, and makes it the newest otherwise. An equal one passes: a holder may write often.
    ///
    /// Waits for a transaction that has checked the same lock and not ended yet; the transaction's
    /// `lock_timeout` bounds that.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::LockErrorKind::Lost): a later holder has written; nothing of this transaction
    /// should be. [`Misconfigured`](crate::LockErrorKind::Misconfigured): the table is missing, or the
    /// role lacks the rights to it, or the connection is in no transaction any more, where a check
    /// would protect nothing; or a token of 2^63 or more, which no PostgreSQL issues.
    /// [`Unavailable`](crate::LockErrorKind::Unavailable): the server refused or did not answer.
    ///
    /// Roll the transaction back after any of them: until then, a refused one also keeps others who
    /// check this lock waiting.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: roll the transaction back when the future was dropped. Dropping the
    /// transaction does that.
    pub async fn check(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        name: &LockName,
        token: FencingToken,
    ) -> Result<(), LockError> {
        let checked = self.check_once(tx, name, token).await;
        checked.map_err(|error| error.with_lock(name))
    }

    /// [`check`](Self::check) for the lock and the token of this guard.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check) and [`LockGuard::fencing_token`].
    ///
    /// # Cancel safety
    ///
    /// As [`check`](Self::check).
    pub async fn check_guard(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        guard: &LockGuard,
    ) -> Result<(), LockError> {
        let token = guard.fencing_token().await?;
        self.check(tx, guard.name(), token).await
    }

    async fn check_once(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        name: &LockName,
        token: FencingToken,
    ) -> Result<(), LockError> {
        plain_text::namespace(&self.namespace)?;
        if i64::try_from(token.get()).is_err() {
            return Err(LockError::misconfigured(
                "a fencing token of 2^63 or more does not fit into a `bigint`, and is none that a \
                 lock backend here has issued",
            ));
        }
        if !tx.is_in_transaction() {
            return Err(LockError::misconfigured(
                "the transaction is over, although its handle lives: a future that began a nested \
                 transaction was dropped; begin another",
            ));
        }
        self.check_schema()?;
        let check = match &self.schema {
            None => CHECK.into_sql_str(),
            Some(_) => AssertSqlSafe(self.in_schema(CHECK)).into_sql_str(),
        };
        let checked = sqlx::query(check)
            // A statement with a name can be another client's, where a pooler gives sessions away.
            .persistent(false)
            .bind(&*self.namespace)
            .bind(name.as_str())
            .bind(token)
            .execute(&mut **tx)
            .await
            .map_err(table_refused)?;
        if checked.rows_affected() == 0 {
            return Err(LockError::lost(
                "a newer holder has written, and this one has been overtaken (if none has, the table came \
                 with data of another server or provider, whose tokens were greater: raise `token_epoch`)",
            ));
        }
        Ok(())
    }
}

/// Why there is no table.
fn not_migrated(error: sqlx::Error) -> LockError {
    let says = match sqlstate(&error).as_deref() {
        Some("42501") => {
            "this database role may not create the table `distributed_lock_fences`; let one that may \
             run `Fence::MIGRATION`"
        }
        Some("3F000") => {
            "the schema of the table `distributed_lock_fences` does not exist; create it (CREATE \
             SCHEMA), or name another by `Fence::schema`"
        }
        _ => return refused(error),
    };
    LockError::misconfigured(says).with_source(error)
}

/// What the table itself can be the reason for.
fn table_refused(error: sqlx::Error) -> LockError {
    let says = match sqlstate(&error).as_deref() {
        Some("42P01" | "42703" | "42P10" | "3F000") => {
            "the table `distributed_lock_fences` is missing, or not as it should be; run \
             `Fence::migrate` or `create_table`, or `Fence::MIGRATION` in your migrations"
        }
        Some("42501") => {
            "the database role needs SELECT, INSERT and UPDATE on the table \
             `distributed_lock_fences`, and USAGE on its schema; run, for the role in place of `app`: \
             GRANT SELECT, INSERT, UPDATE ON distributed_lock_fences TO app;"
        }
        _ => return refused(error),
    };
    LockError::misconfigured(says).with_source(error)
}
