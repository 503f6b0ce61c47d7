//! Where a builder has its server from.

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use super::url;
use crate::LockError;

/// A URL, or a pool that there is. Without `Debug`: a URL has the password in it.
pub(super) enum Source {
    Url(String),
    Pool(PgPool),
}

impl Source {
    /// The options of now, and the pool that has those of later connections.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL.
    pub(super) fn read(self) -> Result<(PgConnectOptions, Option<PgPool>), LockError> {
        match self {
            Self::Url(url) => Ok((url::parse(&url)?, None)),
            Self::Pool(pool) => Ok((pool.connect_options().as_ref().clone(), Some(pool))),
        }
    }
}
