//! The row of a lock as a fence: keeps the next holder out until a transaction of the caller's ends.

use sqlx::{AssertSqlSafe, Connection, Postgres, Transaction};

use super::key::RowKey;
use super::setup::Table;
use super::sql::NO_OWNER;
use crate::LockError;
use crate::postgres::in_transaction::refused;
use crate::postgres::sqlstate::sqlstate;

/// Keeps the lock from the next holder until the transaction ends, if it is held under this token now.
///
/// The row is locked against those who would take it, and not against its holder: the lease is renewed, and
/// the lock released, while the transaction is open. What it writes is committed before any other holder is
/// granted the lock, although the lease may have ended meanwhile.
///
/// # Errors
///
/// [`Lost`](crate::LockErrorKind::Lost): it is held no more, or under another token; nothing of the transaction
/// should be. [`Misconfigured`](crate::LockErrorKind::Misconfigured): the transaction is over, or read-only.
/// [`Unavailable`](crate::LockErrorKind::Unavailable): the server refused or did not answer.
///
/// # Cancel safety
///
/// Not cancel safe: roll the transaction back when the future was dropped. Dropping the transaction does that.
pub async fn fence(
    table: &Table,
    tx: &mut Transaction<'_, Postgres>,
    key: RowKey,
    token: i64,
) -> Result<(), LockError> {
    if !tx.is_in_transaction() {
        return Err(LockError::misconfigured(
            "the transaction is over, although its handle lives: a future that began a nested transaction was \
             dropped; begin another",
        ));
    }
    // Not FOR SHARE: that conflicts with each update of the row, so that the holder's own renewal and release would
    // wait for this transaction, and a transaction that is longer than the lease would lose the lock that it is
    // fenced by. FOR KEY SHARE conflicts with FOR UPDATE alone, which is what a taker, and what removes old rows,
    // asks for.
    let sql = format!(
        "SELECT FROM {} AS l WHERE l.key OPERATOR(pg_catalog.=) '{key}'::pg_catalog.uuid \
         AND l.token OPERATOR(pg_catalog.=) '{token}'::pg_catalog.int8 AND l.owner OPERATOR(pg_catalog.<>) {NO_OWNER}::pg_catalog.uuid \
         AND l.expires OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() FOR KEY SHARE OF l",
        table.name()
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut **tx);
    let rows = rows.await.map_err(|error| match sqlstate(&error).as_deref() {
        Some("42P01" | "3F000") => LockError::misconfigured(format!(
            "the transaction sees no table {}: it is in another database than the locks, or its role lacks \
             USAGE on the schema",
            table.name()
        ))
        .with_source(error),
        _ => refused(error),
    })?;
    match rows.len() {
        0 => Err(LockError::lost(
            "the row of the lock is held no more, or under another token",
        )),
        _ => Ok(()),
    }
}
