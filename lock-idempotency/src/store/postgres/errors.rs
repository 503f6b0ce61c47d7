//! What PostgreSQL says, in words that say what to do.

use lock_core::LockError;

use super::sql::Table;

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    error.code().map(std::borrow::Cow::into_owned)
}

impl Table {
    /// Why a statement over the table failed.
    pub(super) fn refused(&self, error: sqlx::Error) -> LockError {
        let table = self.name();
        let says = match sqlstate(&error).as_deref() {
            Some("42P01" | "42703" | "42P10" | "3F000") => LockError::misconfigured(format!(
                "the table `{table}` is missing, or not as it should be; run this SQL in your migrations, and \
                 rename a table of this name that is another:\n{};",
                self.migration()
            )),
            Some("42501") => {
                let usage = self.schema().map_or_else(String::new, |schema| {
                    format!("GRANT USAGE ON SCHEMA {schema} TO app; ")
                });
                LockError::misconfigured(format!(
                    "the database role needs rights to the table of idempotency keys; run, for the role in \
                     place of `app`: {usage}GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO app;"
                ))
            }
            Some("25006") => read_only(),
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

    /// It was made where it is not found.
    pub(super) fn not_found(&self) -> LockError {
        LockError::misconfigured(format!(
            "the `search_path` of the database role does not find the table `{}` where it is made; give its schema, by \
             `PostgresStore::in_schema`",
            self.name()
        ))
    }

    /// Why the table could not be made.
    pub(super) fn not_created(&self, error: sqlx::Error) -> LockError {
        match sqlstate(&error).as_deref() {
            Some("42501" | "3F000") => LockError::misconfigured(format!(
                "this database role may not create the table `{}`, or its schema does not exist; let a role \
                 that may run this SQL:\n{};",
                self.name(),
                self.migration()
            ))
            .with_source(error),
            _ => self.refused(error),
        }
    }
}

/// A server where nothing can be stored does not know what was: its handlers would run again and again.
pub(super) fn read_only() -> LockError {
    LockError::unavailable(
        "the store of idempotency keys is read-only, or a standby; connect to the primary, as a role whose \
         transactions write (`default_transaction_read_only`)",
    )
}
