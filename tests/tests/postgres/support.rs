//! A database, and sessions that hold and want the keys of locks by plain SQL.

use std::error::Error;
use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_core::{LockError, LockName};
use lock_tests::eventually;
use lock_tests::servers::PostgresServer;
use sha2::{Digest, Sha256};
use sqlx::{Connection, Executor, PgConnection, PgPool, Postgres, Row, Transaction};

pub(crate) const ZERO: Duration = Duration::ZERO;
/// Not reached.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Waited for to its end.
pub(crate) const SHORT: Duration = Duration::from_millis(60);

/// A server for one test.
pub(crate) struct Bed {
    pub(crate) server: PostgresServer,
    pub(crate) pool: PgPool,
    pub(crate) backend: PostgresBackend,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// A server with these settings.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let server = PostgresServer::with(settings).await;
        let pool = server.pool().await;
        let backend = PostgresBackend::connect(&server.url()).await.unwrap();
        Self {
            server,
            pool,
            backend,
        }
    }

    /// Locks in a transaction.
    pub(crate) async fn lock(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        name: &LockName,
        wait: Duration,
    ) -> Result<(), LockError> {
        self.backend.lock_in_transaction(tx, name, wait).await
    }

    /// A session outside the pool.
    pub(crate) async fn session(&self) -> PgConnection {
        self.session_in("postgres").await
    }

    /// A session in another database.
    pub(crate) async fn session_in(&self, database: &str) -> PgConnection {
        let url = self.server.url_for("postgres", database);
        PgConnection::connect(&url).await.unwrap()
    }

    pub(crate) async fn begin(&self) -> Transaction<'static, Postgres> {
        self.pool.begin().await.unwrap()
    }

    /// A session that holds the lock, as a guard does.
    pub(crate) async fn hold(&self, name: &LockName) -> Holder {
        let mut session = self.session().await;
        let got = sqlx::query("SELECT pg_try_advisory_lock($1)")
            .bind(key("", name))
            .fetch_one(&mut session)
            .await;
        assert!(got.unwrap().get::<bool, _>(0), "the lock was not free");
        Holder {
            session,
            key: key("", name),
        }
    }

    /// Whether a guard could have the lock now.
    pub(crate) async fn is_free(&self, name: &LockName) -> bool {
        self.is_key_free(key("", name)).await
    }

    pub(crate) async fn is_key_free(&self, key: i64) -> bool {
        // In a transaction of its own, with which the lock goes.
        let got = sqlx::query("SELECT pg_try_advisory_xact_lock($1)")
            .bind(key)
            .fetch_one(&self.pool)
            .await;
        got.unwrap().get(0)
    }

    /// Returns when `count` sessions wait for an advisory lock.
    pub(crate) async fn waiting(&self, count: i64) {
        self.count_is(
            count,
            "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database \
             WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()",
        )
        .await;
    }

    /// Returns when `count` sessions wait for the end of another transaction.
    pub(crate) async fn waiting_for_transactions(&self, count: i64) {
        self.count_is(
            count,
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
             WHERE locktype = 'transactionid' AND NOT granted AND datname = current_database()",
        )
        .await;
    }

    async fn count_is(&self, count: i64, sql: &'static str) {
        eventually(&format!("{count} sessions wait"), || async {
            let row = self.pool.fetch_one(sql).await.unwrap();
            row.get::<i64, _>(0) == count
        })
        .await;
    }
}

/// A session that holds a lock.
pub(crate) struct Holder {
    session: PgConnection,
    key: i64,
}

impl Holder {
    pub(crate) async fn release(mut self) {
        let unlocked = sqlx::query("SELECT pg_advisory_unlock($1)")
            .bind(self.key)
            .fetch_one(&mut self.session)
            .await;
        assert!(unlocked.unwrap().get::<bool, _>(0), "it was not held");
    }
}

pub(crate) fn name(text: &str) -> LockName {
    text.parse().unwrap()
}

/// The key of a lock, as the documentation has it.
pub(crate) fn key(namespace: &str, name: &LockName) -> i64 {
    let text = format!("lock-postgres-v1\0{namespace}\0{}", name.as_str());
    i64::from_be_bytes(Sha256::digest(text)[..8].try_into().unwrap())
}

/// The value of a setting.
pub(crate) async fn setting(connection: &mut PgConnection, name: &str) -> String {
    sqlx::query("SELECT current_setting($1)")
        .bind(name)
        .fetch_one(connection)
        .await
        .unwrap()
        .get(0)
}

/// Whether the transaction still answers.
pub(crate) async fn answers(connection: &mut PgConnection) -> bool {
    connection.fetch_one("SELECT 1").await.is_ok()
}

/// The process of the server behind a connection.
pub(crate) async fn pid(connection: &mut PgConnection) -> i32 {
    let row = connection.fetch_one("SELECT pg_backend_pid()").await;
    row.unwrap().get(0)
}

/// The SQLSTATE of what an error came from.
pub(crate) fn sqlstate(error: &LockError) -> Option<String> {
    let source = error.source()?.downcast_ref::<sqlx::Error>()?;
    Some(source.as_database_error()?.code()?.into_owned())
}
