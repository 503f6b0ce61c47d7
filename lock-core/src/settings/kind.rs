//! The providers that can be chosen by name.

use std::fmt;
use std::str::FromStr;

use crate::LockError;

/// The way out where a server cannot hold the locks that a service has for something else.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) const ELSEWHERE: &str = "or have the locks elsewhere: LOCK_PROVIDER chooses `postgres` (with \
     DATABASE_URL), `postgres-table` (the same behind a transaction pooler), `redis` (with REDIS_URL) or `file` \
     (on one machine)";

/// What holds the locks, by the name that configuration has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProviderKind {
    /// `redis`: a Redis server or cluster.
    Redis,
    /// `postgres`: the advisory locks of a PostgreSQL server.
    Postgres,
    /// `postgres-table`: a table in a PostgreSQL server, also behind a transaction pooler. Never chosen unless it
    /// is named.
    PostgresTable,
    /// `file`: files of this machine.
    File,
}

impl ProviderKind {
    pub(crate) const ALL: [Self; 4] =
        [Self::Redis, Self::Postgres, Self::PostgresTable, Self::File];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::PostgresTable => "postgres-table",
            Self::File => "file",
        }
    }

    /// The variable that names its server, and so chooses it; files have none.
    pub(crate) const fn variable(self) -> Option<&'static str> {
        match self {
            Self::Redis => Some("REDIS_URL"),
            Self::Postgres | Self::PostgresTable => Some("DATABASE_URL"),
            Self::File => None,
        }
    }

    /// The feature of this crate that has it.
    pub(crate) const fn feature(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres | Self::PostgresTable => "postgres",
            Self::File => "file",
        }
    }

    /// Whether it holds the locks where its server is given and none is named.
    pub(crate) const fn is_chosen_unnamed(self) -> bool {
        !matches!(self, Self::PostgresTable)
    }

    /// Whether its locks have a lease. Those of files last as long as their process.
    pub(crate) const fn has_lease(self) -> bool {
        !matches!(self, Self::File)
    }

    /// Whether its locks are in a table.
    pub(crate) const fn has_table(self) -> bool {
        matches!(self, Self::PostgresTable)
    }

    /// Whether its feature was compiled in.
    pub(crate) const fn is_built(self) -> bool {
        match self {
            Self::Redis => cfg!(feature = "redis"),
            Self::Postgres | Self::PostgresTable => cfg!(feature = "postgres"),
            Self::File => cfg!(feature = "file"),
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ProviderKind {
    type Err = LockError;

    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) for any other text.
    fn from_str(text: &str) -> Result<Self, LockError> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            LockError::misconfigured(format!("there is no such provider; known are {known}"))
        })
    }
}
