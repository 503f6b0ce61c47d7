//! A lock inside a transaction of the caller's own: held until that transaction ends.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Postgres, Row, Transaction};

use super::in_transaction::refused;
use super::key::Keys;
use super::rights;
use super::sqlstate::sqlstate;
use crate::nesting::transaction_waits;
use crate::{LockError, LockName};

/// One life of one server process, and a database in it: the reach of an advisory lock.
///
/// Every role may read it, unless that right was taken from all. A standby and a restarted server
/// differ by the time of their start. A database keeps its name while a session of ours is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatabaseIdentity {
    /// When the server was started, in seconds since 1970, to the microsecond.
    started: String,
    /// The name of the database.
    database: String,
}

/// When the server was started.
///
/// This and all that is run in a transaction of the caller's names the schema of every function and
/// operator: in it the caller's path rules, where neighbours may have put others.
const STARTED: &str = "extract(epoch FROM pg_catalog.pg_postmaster_start_time())";

impl DatabaseIdentity {
    /// A statement that says where its connection leads to.
    pub(crate) fn asked() -> String {
        format!("SELECT {STARTED}::varchar, pg_catalog.current_database()")
    }

    /// Reads its row.
    ///
    /// # Errors
    ///
    /// Where it is not that of [`asked`](Self::asked).
    pub(crate) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            started: row.try_get(0)?,
            database: row.try_get(1)?,
        })
    }
}

/// Takes the lock of `keys`, and holds it until the transaction ends: with its commit, its rollback,
/// an error that leaves it nothing but to roll back, or the end of its connection. It excludes guards
/// of the same name, and is excluded by them, also by those of this process.
///
/// - **READ COMMITTED only.** Under REPEATABLE READ and SERIALIZABLE a transaction goes on seeing
///   what was there before its wait, and not what the holder did.
/// - It waits for up to `wait`, in milliseconds, rounded up, for at most 24 days. Zero asks once. The
///   wait takes place in the server, in order of arrival; that the server itself is gone is noticed
///   as with any other statement. What waits is an open transaction, which vacuum has to mind.
/// - The transaction takes it again immediately (it is re-entrant in it), and as many others as it wants.
///   Two transactions that take several must do so in one order: PostgreSQL ends a deadlock of
///   transactions, but does not see one that a guard is part of; `wait` ends that.
/// - Whatever the answer, `lock_timeout` is as it was, and the transaction can go on where
///   PostgreSQL allows it. A `statement_timeout` that is shorter than `wait` ends it.
/// - A rollback to a savepoint gives back what was locked after it was made.
/// - `home`: where the guards of the same name are.
///
/// # Errors
///
/// [`Contended`](crate::LockErrorKind::Contended): held by another for the whole wait.
/// [`Misconfigured`](crate::LockErrorKind::Misconfigured): another isolation level, a standby,
/// another database than `home`, no transaction. [`Unavailable`](crate::LockErrorKind::Unavailable):
/// a deadlock, a cancelled statement, a transaction that has failed before, a lost connection.
///
/// # Cancel safety
///
/// Not cancel safe: roll the transaction back when the future was dropped. Dropping the transaction
/// does that. The server goes on with the wait, and the connection is busy until it is over; whether
/// the lock was taken is unknown until then.
pub(crate) async fn lock_in_transaction(
    tx: &mut Transaction<'_, Postgres>,
    name: &LockName,
    keys: Keys,
    home: &DatabaseIdentity,
    wait: Duration,
) -> Result<(), LockError> {
    let begun = Instant::now();
    let tried = in_savepoint(tx, &try_once(keys, home)).await;
    let tried = match tried {
        Ok(tried) => tried,
        Err(error) => return Err(refused_in(tx, error).await),
    };
    let field = |name| tried.try_get::<String, _>(name).map_err(refused);
    match field("verdict")?.as_str() {
        "granted" => return Ok(()),
        "held" => {}
        "isolation" => {
            return Err(LockError::misconfigured(
                "a lock in a transaction needs READ COMMITTED: under REPEATABLE READ and \
                 SERIALIZABLE the transaction would not see what the last holder did while it \
                 waited",
            ));
        }
        "standby" => {
            return Err(LockError::misconfigured(
                "the transaction is on a standby, whose locks do not exclude clients of the primary; begin it on the primary",
            ));
        }
        _ => {
            return Err(LockError::misconfigured(
                "the transaction is in another database, or on another server, than the lock \
                 backend; their locks would not exclude each other",
            ));
        }
    }
    let contended = || LockError::contended().with_waited(begun.elapsed());
    if wait.is_zero() {
        return Err(contended());
    }
    poll_fn(|cx| {
        transaction_waits(name, cx.waker());
        Poll::Ready(())
    })
    .await;
    let waiting = wait_for(keys, wait, &field("lock_timeout")?);
    match in_savepoint(tx, &waiting).await {
        Ok(_) => Ok(()),
        Err(error) if sqlstate(&error).as_deref() == Some("55P03") => {
            Err(contended().with_source(error))
        }
        Err(error) => Err(refused_in(tx, error).await),
    }
}

/// What the server says, and which right is missing if one is: the savepoint has left the transaction
/// as it was.
async fn refused_in(tx: &mut Transaction<'_, Postgres>, error: sqlx::Error) -> LockError {
    if sqlstate(&error).as_deref() == Some("42501") {
        return rights::name_missing_in_transaction(tx, error).await;
    }
    refused(error)
}

/// Looks where the transaction is, and tries once if that is right. The cases are evaluated in their
/// order, so that nothing is locked where it should not be.
fn try_once(keys: Keys, home: &DatabaseIdentity) -> String {
    let DatabaseIdentity { started, database } = home;
    format!(
        "SELECT CASE \
           WHEN pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.<>) \
             ALL (ARRAY['read committed', 'read uncommitted']) THEN 'isolation' \
           WHEN pg_catalog.pg_is_in_recovery() THEN 'standby' \
           WHEN {STARTED} OPERATOR(pg_catalog.<>) {} THEN 'elsewhere' \
           WHEN pg_catalog.current_database() OPERATOR(pg_catalog.<>) {} THEN 'elsewhere' \
           WHEN pg_catalog.pg_try_advisory_xact_lock({}) THEN 'granted' \
           ELSE 'held' \
         END AS verdict, pg_catalog.current_setting('lock_timeout') AS lock_timeout",
        quoted(started),
        quoted(database),
        keys.key()
    )
}

/// A literal, whatever `standard_conforming_strings` is.
fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Waits for the lock. `lock_timeout` is what is set now; the release of a savepoint would keep ours.
fn wait_for(keys: Keys, wait: Duration, lock_timeout: &str) -> String {
    format!(
        "SET LOCAL lock_timeout = {}; \
         SELECT pg_catalog.pg_advisory_xact_lock({}); \
         SET LOCAL lock_timeout = {}",
        milliseconds(wait),
        keys.key(),
        quoted(lock_timeout),
    )
}

/// `wait` for `lock_timeout`, where zero means for ever.
fn milliseconds(wait: Duration) -> i32 {
    let rounded_up = wait.as_nanos().div_ceil(1_000_000).max(1);
    i32::try_from(rounded_up).unwrap_or(i32::MAX)
}

/// Runs `sql` in a savepoint, in one exchange. An error takes back all that it did, its settings and
/// locks included (one that was granted just when its wait ended, too), and the transaction lives on.
///
/// The savepoint is our own: with one of sqlx, a cancelled future can end the whole transaction while
/// its handle still looks open.
async fn in_savepoint(tx: &mut Transaction<'_, Postgres>, sql: &str) -> Result<PgRow, sqlx::Error> {
    let within = format!("SAVEPOINT distributed_lock; {sql}; RELEASE SAVEPOINT distributed_lock");
    let done = sqlx::raw_sql(AssertSqlSafe(within))
        .fetch_all(&mut **tx)
        .await
        .and_then(|mut rows| rows.pop().ok_or(sqlx::Error::RowNotFound));
    if let Err(error) = &done {
        // These two come from the SAVEPOINT itself: there is none to go back to.
        if !matches!(sqlstate(error).as_deref(), Some("25P01" | "25P02")) {
            let back = "ROLLBACK TO SAVEPOINT distributed_lock; RELEASE SAVEPOINT distributed_lock";
            // If that fails too, so does whatever the transaction does next.
            sqlx::raw_sql(back).execute(&mut **tx).await.ok();
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_becomes_a_lock_timeout_of_zero() {
        assert_eq!(milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(milliseconds(Duration::from_millis(1)), 1);
        assert_eq!(milliseconds(Duration::from_nanos(1_000_001)), 2);
        assert_eq!(milliseconds(Duration::from_secs(5)), 5_000);
        assert_eq!(
            milliseconds(Duration::from_millis(i32::MAX as u64)),
            i32::MAX
        );
        assert_eq!(milliseconds(Duration::MAX), i32::MAX);
        assert_eq!(milliseconds(Duration::ZERO), 1);
    }
}
