//! Locks in a PostgreSQL server of the test's own.

use std::time::Duration;

use lock_core::LockName;
use lock_core::postgres::PostgresBackend;
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use super::Store;
use crate::servers::PostgresServer;

/// A server; every [`PostgresBackend`] over it is a session of its own.
#[derive(Debug)]
pub struct PostgresStore {
    /// The server.
    pub server: PostgresServer,
    /// Connections to look at it.
    pub pool: PgPool,
}

/// Short, so that a test need not wait for long.
const LEASE: Duration = Duration::from_secs(2);

impl PostgresStore {
    /// The key of a lock, as it is documented.
    #[must_use]
    pub fn key_of(name: &LockName) -> i64 {
        let digest = Sha256::digest(format!("lock-postgres-v1\0\0{name}"));
        i64::from_be_bytes(digest[..8].try_into().unwrap())
    }

    /// What the program `locker` is to open for the locks at this URL, with the lease of the suite.
    #[must_use]
    pub fn address_of(url: &str) -> String {
        format!("postgres:{}:{url}", LEASE.as_millis())
    }

    /// A backend that connects by this URL, with the lease of the suite.
    ///
    /// # Panics
    ///
    /// When it cannot connect.
    pub async fn backend_at(&self, url: &str) -> PostgresBackend {
        let builder = PostgresBackend::builder(url).lease(LEASE);
        builder.connect().await.unwrap()
    }

    /// Ends the sessions of the library that hold this key, or all of them; returns how many there
    /// were.
    pub async fn terminate(&self, key: Option<i64>) -> usize {
        let ended = sqlx::query_scalar::<_, bool>(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity AS a \
             WHERE application_name ~ '^distributed_lock( |$)' AND ($1 IS NULL OR EXISTS ( \
               SELECT FROM pg_locks AS l WHERE l.pid = a.pid AND l.locktype = 'advisory' \
               AND ((l.classid::int8 << 32) | l.objid::int8) = $1))",
        );
        let ended = ended.bind(key).fetch_all(&self.pool).await.unwrap();
        ended.into_iter().filter(|ended| *ended).count()
    }

    /// How many advisory locks the sessions of the library hold under keys of locks and such:
    /// registrations, and a lease for each session.
    pub async fn advisory_locks(&self) -> i64 {
        let locks = sqlx::query_scalar(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
             WHERE locktype = 'advisory' AND (objsubid = 1 OR mode = 'ExclusiveLock') \
             AND application_name ~ '^distributed_lock( |$)'",
        );
        locks.fetch_one(&self.pool).await.unwrap()
    }

    /// How many sessions the library has.
    pub async fn sessions(&self) -> i64 {
        let sessions = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^distributed_lock( |$)'",
        );
        sessions.fetch_one(&self.pool).await.unwrap()
    }
}

impl Store for PostgresStore {
    type Backend = PostgresBackend;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[];
    const LEASE: Option<Duration> = Some(LEASE);
    const NOTICED_WITHIN: Duration = Duration::from_millis(50);
    const GRANTED_AFTER_A_KILL: Duration = Duration::from_millis(500);
    const LISTS_READERS: bool = false;

    async fn open() -> Self {
        // Room for ten thousand locks in a quarter of the table.
        let server = PostgresServer::with(&[("max_locks_per_transaction", "512")]).await;
        let pool = server.pool().await;
        Self { server, pool }
    }

    async fn backend(&self) -> PostgresBackend {
        self.backend_at(&self.server.url()).await
    }

    async fn long_lived(&self) -> PostgresBackend {
        PostgresBackend::connect(&self.server.url()).await.unwrap()
    }

    async fn lose(&self, name: &LockName) {
        let ended = self.terminate(Some(Self::key_of(name))).await;
        assert_eq!(ended, 1, "a lock that is to be lost is held by a session");
    }

    async fn lose_all(&self) {
        self.terminate(None).await;
    }

    async fn open_connections(&self) -> usize {
        self.sessions().await.try_into().unwrap()
    }

    fn address(&self) -> Option<String> {
        Some(Self::address_of(&self.server.url()))
    }
}
