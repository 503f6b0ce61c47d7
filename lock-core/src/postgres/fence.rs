//! Refusing writes of holders that have lost their lock, inside the transaction that writes.

use std::borrow::Cow;

use sqlx::{AssertSqlSafe, Connection, PgExecutor, Postgres, Transaction};

use super::in_transaction::{refused, sqlstate};
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
/// - Work that has no token, because it takes no lock, is not stopped by it.
/// - A row stays for every name that was ever checked. Those of long ago can go, as long as no holder
///   lives that long: `DELETE FROM distributed_lock_fences WHERE checked_at < now() - interval '7 days'`.
///
/// Work inside one database that can afford to keep a transaction open needs neither: a lock taken
/// [in the transaction](crate::postgres) cannot be lost before the writes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    namespace: Cow<'static, str>,
}

/// One statement, so that it is one decision: the row is locked, new or not, newer or not, until the
/// transaction ends.
const CHECK: &str = "INSERT INTO distributed_lock_fences AS newest (namespace, lock, token) \
     VALUES ($1, $2, $3) \
     ON CONFLICT (namespace, lock) DO UPDATE \
     SET token = excluded.token, checked_at = excluded.checked_at \
     WHERE newest.token <= excluded.token";

/// One migration at a time: two `CREATE TABLE IF NOT EXISTS` at once fail. A pair of numbers never
/// meets the key of a lock; these are arbitrary, and the same in every version.
const ALONE: &str = "SELECT pg_catalog.pg_advisory_xact_lock(1684827491, 1)";

impl Fence {
    /// The table that it needs, for your migrations. Running it again does nothing.
    ///
    /// Roles that check need SELECT, INSERT and UPDATE on it. It is found by the `search_path`.
    pub const MIGRATION: &str = "\
CREATE TABLE IF NOT EXISTS distributed_lock_fences (
    namespace text COLLATE \"C\" NOT NULL DEFAULT '',
    lock text COLLATE \"C\" NOT NULL,
    token bigint NOT NULL,
    checked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, lock)
)";

    /// The fence of locks in no namespace.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            namespace: Cow::Borrowed(""),
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
        }
    }

    /// Makes the table if there is none, by [`MIGRATION`](Self::MIGRATION). Any number of processes
    /// may do so at the same time.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) when the role may not create tables:
    /// then the owner of the schema must. [`Unavailable`](crate::LockErrorKind::Unavailable) when the
    /// server did not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves either the whole table or none.
    pub async fn migrate(executor: impl PgExecutor<'_>) -> Result<(), LockError> {
        let alone = format!("{ALONE}; {}", Self::MIGRATION);
        match sqlx::raw_sql(AssertSqlSafe(alone)).execute(executor).await {
            Ok(_) => Ok(()),
            Err(error) if sqlstate(&error).as_deref() == Some("42501") => {
                Err(LockError::misconfigured(
                    "this database role may not create the table `distributed_lock_fences`; let \
                     one that may run `Fence::MIGRATION`",
                )
                .with_source(error))
            }
            Err(error) => Err(refused(error)),
        }
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
        let checked = sqlx::query(CHECK)
            .bind(&*self.namespace)
            .bind(name.as_str())
            .bind(token)
            .execute(&mut **tx)
            .await
            .map_err(table_refused)?;
        if checked.rows_affected() == 0 {
            return Err(LockError::lost(
                "a newer holder has written; this one has been overtaken",
            ));
        }
        Ok(())
    }
}

/// What the table itself can be the reason for.
fn table_refused(error: sqlx::Error) -> LockError {
    let says = match sqlstate(&error).as_deref() {
        Some("42P01" | "42703" | "42P10") => {
            "the table `distributed_lock_fences` is missing, or not as it should be; run \
             `Fence::migrate`, or `Fence::MIGRATION` in your migrations"
        }
        Some("42501") => {
            "the database role needs SELECT, INSERT and UPDATE on the table \
             `distributed_lock_fences`"
        }
        _ => return refused(error),
    };
    LockError::misconfigured(says).with_source(error)
}
