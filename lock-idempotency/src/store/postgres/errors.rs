//! What PostgreSQL says, in words that say what to do.

use lock_core::LockError;

use super::sql::Table;

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    error.code().map(std::borrow::Cow::into_owned)
}

pub(super) fn refused(error: sqlx::Error) -> LockError {
    let says = match sqlstate(&error).as_deref() {
        Some("42P01" | "42703" | "42P10" | "3F000") => LockError::misconfigured(
            "the table `distributed_lock_idempotency` is missing, or not as it should be; run \
             `PostgresStore::MIGRATION` in your migrations",
        ),
        Some("42501") => LockError::misconfigured(
            "the database role needs rights to the table of idempotency keys; run, for the role in place \
             of `app`: GRANT SELECT, INSERT, UPDATE, DELETE ON distributed_lock_idempotency TO app;",
        ),
        Some("25006") => LockError::unavailable(
            "the store of idempotency keys is read-only, or a standby; connect to the primary",
        ),
        Some("40001" | "40P01" | "25P02") => LockError::unavailable(
            "the transaction has to be rolled back and tried again: another was in its way, or an \
             earlier statement of it has failed",
        ),
        Some(_) => {
            LockError::unavailable("the server of the idempotency keys refused; see the source")
        }
        None => LockError::unavailable("the server of the idempotency keys did not answer"),
    };
    says.with_source(error)
}

pub(super) fn not_created(error: sqlx::Error, table: &Table) -> LockError {
    match sqlstate(&error).as_deref() {
        Some("42501" | "3F000") => LockError::misconfigured(format!(
            "this database role may not create the table `{}`, or its schema does not exist; let a role \
             that may run this SQL:\n{};",
            table.name(),
            table.migration()
        ))
        .with_source(error),
        _ => refused(error),
    }
}
