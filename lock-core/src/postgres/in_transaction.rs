//! What PostgreSQL says to a statement in a caller's transaction, in words that say what to do.

use super::grants;
use super::sqlstate::sqlstate;
use crate::LockError;

/// The error for a statement in a caller's transaction that failed with `error`.
pub(super) fn refused(error: sqlx::Error) -> LockError {
    let code = sqlstate(&error);
    let says = match code.as_deref() {
        Some("25P01") => LockError::misconfigured(
            "the connection is not in a transaction, although sqlx takes it to be; \
             end transactions with `commit()` and `rollback()` only",
        ),
        Some("25006") => LockError::misconfigured(
            "the transaction is read-only, or on a standby; use a connection that may write",
        ),
        Some("42501") => return grants::refused(error),
        Some("25P02") => LockError::unavailable(
            "an earlier statement of this transaction has failed, so that PostgreSQL refuses all \
             others; roll it back and try again",
        ),
        Some("40P01") => LockError::unavailable(
            "this transaction and another wait for each other; roll it back and try again, and \
             take several locks in one order everywhere",
        ),
        Some("40001") => LockError::unavailable(
            "another transaction has changed what this one has already seen; roll it back and try \
             again",
        ),
        Some("55P03") => LockError::unavailable(
            "the transaction's `lock_timeout` ended its wait for another transaction",
        ),
        Some("57014") => LockError::unavailable(
            "the statement was cancelled, by the transaction's `statement_timeout` or by an \
             administrator",
        ),
        Some("53200") => LockError::unavailable(
            "the server's lock table is full; raise its `max_locks_per_transaction`",
        ),
        Some(_) => LockError::unavailable("the server refused; see the source of this error"),
        None => LockError::unavailable("the transaction's connection failed"),
    };
    says.with_source(error)
}
