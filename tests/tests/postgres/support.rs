//! What several of these tests need.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use lock_core::postgres::{PostgresBackend, PostgresBuilder};
use lock_core::{LockError, LockGuard, LockName, LockPolicy, LockProvider};
use lock_tests::child::Child;
use lock_tests::servers::PostgresServer;
use lock_tests::{PostgresStore, Store, boottime, eventually};
use sha2::{Digest, Sha256};
use sqlx::postgres::PgQueryResult;
use sqlx::{Connection, Executor, PgConnection, PgPool, Postgres, Row, Transaction};
use tokio::task::JoinHandle;

pub(crate) const ZERO: Duration = Duration::ZERO;
/// Waited for to its end.
pub(crate) const SHORT: Duration = Duration::from_millis(60);

/// A server for one test.
pub(crate) struct Harness {
    pub(crate) server: PostgresServer,
    pub(crate) pool: PgPool,
    pub(crate) backend: PostgresBackend,
}

impl Harness {
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

/// The lease of all sessions here.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// How much earlier than its lease a guard ends: 1 % and 50 ms.
pub(crate) const MARGIN: Duration = Duration::from_millis(70);

/// How late the locks of a holder that has fallen silent can be acquired.
pub(crate) const GRANTED_WITHIN: Duration = Duration::from_millis(2_500);

/// What the library may add to a wait.
pub(crate) const BOUND: Duration = Duration::from_millis(100);

/// Longer than any hand-over takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn order() -> LockName {
    numbered(42)
}

pub(crate) fn numbered(number: usize) -> LockName {
    LockName::new("order", "process", number).unwrap()
}

pub(crate) fn builder(server: &PostgresServer) -> PostgresBuilder {
    PostgresBackend::builder(server.url()).lease(LEASE)
}

/// A provider over a connection that leads through this URL.
pub(crate) async fn client(url: &str) -> LockProvider {
    LockProvider::new(backend(url).await)
}

pub(crate) async fn backend(url: &str) -> PostgresBackend {
    let builder = PostgresBackend::builder(url).lease(LEASE);
    builder.connect().await.unwrap()
}

/// Takes a lock that is free.
pub(crate) async fn take(client: &LockProvider, name: LockName) -> LockGuard {
    acquire(client, name, Duration::ZERO).await
}

/// Takes a lock within this time.
pub(crate) async fn acquire(
    client: &LockProvider,
    name: LockName,
    policy: impl Into<LockPolicy>,
) -> LockGuard {
    client.lock(name).unwrap().acquire(policy).await.unwrap()
}

/// Whether the lock is refused immediately.
pub(crate) async fn child(store: &PostgresStore) -> Child {
    Child::start(env!("CARGO_BIN_EXE_locker"), &store.address().unwrap()).await
}

/// The process on the server whose session holds a lock.
pub(crate) async fn session_of(pool: &PgPool, name: &LockName) -> i32 {
    let holder = sqlx::query_scalar(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' \
         AND objsubid = 1 AND ((classid::int8 << 32) | objid::int8) = $1",
    );
    holder.bind(key("", name)).fetch_one(pool).await.unwrap()
}

/// How the hold of a lock ended, by the clock of [`boottime`].
#[derive(Debug)]
pub(crate) struct Ended {
    /// When it was seen to be valid for the last time.
    pub(crate) last_valid: u64,
}

impl Ended {
    /// Looks at a guard until its lock is lost.
    pub(crate) async fn of(guard: Arc<LockGuard>) -> Self {
        let lost = guard.lost();
        let mut last_valid = 0;
        loop {
            let before = boottime();
            if !guard.is_valid() {
                break;
            }
            last_valid = before;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        lost.await;
        assert!(!guard.is_valid(), "a loss lasts");
        Self { last_valid }
    }
}

/// A duration in the nanoseconds of [`boottime`].
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

/// The commit of a client that notifies waits for a standby that is not there, and all other
/// notifications of the server wait for it.
pub(crate) struct HeldUp<'a> {
    server: &'a PostgresServer,
    commit: JoinHandle<sqlx::Result<PgQueryResult>>,
}

impl<'a> HeldUp<'a> {
    pub(crate) async fn on(server: &'a PostgresServer) -> Self {
        let pool = server.pool().await;
        let table = "CREATE TABLE written (number int)";
        pool.execute(table).await.unwrap();
        server
            .set("synchronous_standby_names", "nobody")
            .await
            .unwrap();
        let mut stuck = PgConnection::connect(&server.url()).await.unwrap();
        let commit = tokio::spawn(async move {
            let write = "BEGIN; INSERT INTO written VALUES (1); NOTIFY elsewhere; COMMIT";
            sqlx::raw_sql(write).execute(&mut stuck).await
        });
        eventually("its commit waits for the standby", || async {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            pool.fetch_one(waiting).await.unwrap().get::<i64, _>(0) == 1
        })
        .await;
        Self { server, commit }
    }

    /// Checks that it still waits, and lets it go on.
    pub(crate) async fn end(self) {
        assert!(!self.commit.is_finished(), "it waits all the time");
        let set = self.server.set("synchronous_standby_names", "");
        set.await.unwrap();
        self.commit.await.unwrap().unwrap();
    }
}
