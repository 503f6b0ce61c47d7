//! Locks for the users of one PostgreSQL database.
//!
//! What a lost lock cannot stop (a query on its way, a process that was frozen in the middle of a
//! write) the [fence](Fence) refuses.

mod fence;
mod in_transaction;
mod token_column;
mod transaction;

pub use fence::Fence;

#[doc(hidden)]
pub use testing::lock_in_transaction;

/// `lock_in_transaction` for tests that have no backend.
mod testing {
    use std::time::Duration;

    use sqlx::{PgConnection, Postgres, Transaction};

    use super::transaction::{self, DatabaseIdentity};
    use crate::name::key::postgres_keys;
    use crate::{LockError, LockName};

    /// Locks `name` in `tx`, which must be in the database of `home`, if that is given.
    #[doc(hidden)]
    #[allow(clippy::missing_errors_doc, reason = "no part of the public interface")]
    pub async fn lock_in_transaction(
        tx: &mut Transaction<'_, Postgres>,
        namespace: &str,
        name: &LockName,
        home: Option<&mut PgConnection>,
        wait: Duration,
    ) -> Result<(), LockError> {
        let home = match home {
            Some(home) => Some(DatabaseIdentity::read(home).await?),
            None => None,
        };
        transaction::lock_in_transaction(tx, postgres_keys(namespace, name), home, wait)
            .await
            .map_err(|error| error.with_lock(name))
    }
}
