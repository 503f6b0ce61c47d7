//! Locks in a table of a PostgreSQL server of the test's own, behind a pooler or without one.

use std::time::Duration;

use lock_core::LockName;
use lock_core::postgres::LeaseTable;
use lock_core::postgres::lease_table::RowKey;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, Row};

use super::Store;
use crate::servers::{PgBouncer, PostgresServer};

/// Short, so that a test need not wait for long.
const LEASE: Duration = Duration::from_secs(2);

/// A lock whose row is freed is lost at the next renewal.
const NOTICED_WITHIN: Duration = LEASE.checked_div(3).unwrap();

/// The server, whose tables the test can write.
#[derive(Debug)]
struct Corner {
    pool: PgPool,
    server: PostgresServer,
}

impl Corner {
    async fn open() -> Self {
        let server = PostgresServer::start().await;
        let pool = server.pool().await;
        Self { pool, server }
    }

    async fn free(&self, which: &str) -> u64 {
        let free = format!(
            "UPDATE distributed_lock_leases SET owner = NULL \
             WHERE name NOT IN ('server', 'mark') AND {which}"
        );
        let freed = self.pool.execute(AssertSqlSafe(free)).await.unwrap();
        freed.rows_affected()
    }

    async fn lose(&self, name: &LockName) {
        let key = RowKey::new("", name);
        let which = format!("owner IS NOT NULL AND key = '{key}'");
        assert_eq!(
            self.free(&which).await,
            1,
            "a lock that is to be lost is held"
        );
    }

    async fn lose_all(&self) {
        self.free("true").await;
    }
}

/// A server, and a pooler in transaction mode with two sessions before it.
#[derive(Debug)]
pub struct LeaseTableStore {
    bouncer: PgBouncer,
    /// Ends after the pooler.
    corner: Corner,
}

impl LeaseTableStore {
    /// What the program `locker` is to open for the locks at this URL, with the lease of the suite.
    #[must_use]
    pub fn address_of(url: &str) -> String {
        format!("table:{}:{url}", LEASE.as_millis())
    }

    /// Where the pooler is.
    #[must_use]
    pub fn pooler(&self) -> &PgBouncer {
        &self.bouncer
    }

    /// The server behind it.
    #[must_use]
    pub fn server(&self) -> &PostgresServer {
        &self.corner.server
    }

    /// Connections to the server, past the pooler.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.corner.pool
    }

    async fn connect(&self, lease: Duration) -> LeaseTable {
        let builder = LeaseTable::builder(self.bouncer.url()).lease(lease);
        builder.connect().await.unwrap()
    }
}

impl Store for LeaseTableStore {
    type Backend = LeaseTable;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[(
        "tasks_that_hand_over_let_another_client_go_first",
        "without notifications no process knows that another waits",
    )];
    const LEASE: Option<Duration> = Some(LEASE);
    const NOTICED_WITHIN: Duration = NOTICED_WITHIN;
    const GRANTED_AFTER_A_KILL: Duration = LEASE;
    const KEEPS: bool = true;

    async fn open() -> Self {
        let corner = Corner::open().await;
        let settings = [
            ("pool_mode", "transaction"),
            ("default_pool_size", "2"),
            ("max_client_conn", "500"),
            ("stats_users", "postgres"),
            // A server that comes up again is used immediately.
            ("server_login_retry", "0.1"),
        ];
        let bouncer = PgBouncer::with(&corner.server, &settings).await;
        Self { bouncer, corner }
    }

    async fn backend(&self) -> LeaseTable {
        self.connect(LEASE).await
    }

    async fn long_lived(&self) -> LeaseTable {
        self.connect(Duration::from_secs(30)).await
    }

    async fn lose(&self, name: &LockName) {
        self.corner.lose(name).await;
    }

    async fn lose_all(&self) {
        self.corner.lose_all().await;
    }

    /// Those of the pooler to its clients, as it says.
    async fn open_connections(&self) -> usize {
        let url = format!("postgres://postgres@{}/pgbouncer", self.bouncer.address());
        let mut console = PgConnection::connect(&url).await.unwrap();
        let clients = sqlx::raw_sql("SHOW CLIENTS")
            .fetch_all(&mut console)
            .await
            .unwrap();
        let of_ours = clients
            .iter()
            .filter(|row| row.get::<&str, _>("database") == "postgres");
        of_ours.count()
    }

    fn address(&self) -> Option<String> {
        Some(Self::address_of(&self.bouncer.url()))
    }
}

/// A server that is reached directly, and notifies of releases.
#[derive(Debug)]
pub struct DirectLeaseTableStore(Corner);

impl DirectLeaseTableStore {
    /// The server.
    #[must_use]
    pub fn server(&self) -> &PostgresServer {
        &self.0.server
    }

    /// Connections to it.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    async fn connect(&self, lease: Duration) -> LeaseTable {
        let url = self.0.server.url();
        let builder = LeaseTable::builder(&url).lease(lease).listen_url(&url);
        builder.connect().await.unwrap()
    }
}

impl Store for DirectLeaseTableStore {
    type Backend = LeaseTable;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[];
    const LEASE: Option<Duration> = Some(LEASE);
    const NOTICED_WITHIN: Duration = NOTICED_WITHIN;
    const GRANTED_AFTER_A_KILL: Duration = LEASE;
    const KEEPS: bool = true;

    async fn open() -> Self {
        Self(Corner::open().await)
    }

    async fn backend(&self) -> LeaseTable {
        self.connect(LEASE).await
    }

    async fn long_lived(&self) -> LeaseTable {
        self.connect(Duration::from_secs(30)).await
    }

    async fn lose(&self, name: &LockName) {
        self.0.lose(name).await;
    }

    async fn lose_all(&self) {
        self.0.lose_all().await;
    }

    async fn open_connections(&self) -> usize {
        let sessions = sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'distributed_lock_table'",
        );
        let sessions = sessions.fetch_one(&self.0.pool).await.unwrap();
        sessions.try_into().unwrap()
    }

    fn address(&self) -> Option<String> {
        Some(format!(
            "listening-{}",
            LeaseTableStore::address_of(&self.0.server.url())
        ))
    }
}
