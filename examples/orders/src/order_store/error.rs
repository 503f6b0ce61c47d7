//! Why an order was not read or not written.

use std::sync::Arc;

use lock_core::LockError;
use sqlx::error::DatabaseError;

/// What can go wrong with the database. Cheap to clone: one failed read can be that of many requests.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("no order can have this id")]
    InvalidId,
    #[error("the database did not answer in time")]
    Silent,
    #[error("the database cannot be used")]
    Database(#[source] Arc<sqlx::Error>),
}

/// Why an order was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the order is not as it was when it was read")]
    Changed,
    /// The lock was lost, or a later holder has written.
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(DatabaseError::code);
        match code.as_deref() {
            // A text with a NUL; a key that is too long for its index.
            Some("22021" | "54000") => Self::InvalidId,
            _ => Self::Database(Arc::new(error)),
        }
    }
}

impl From<sqlx::Error> for WriteError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
