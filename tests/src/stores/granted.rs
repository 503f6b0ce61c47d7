//! Locks in a PostgreSQL server whose roles have no rights but those that were granted.

use std::time::Duration;

use lock_core::LockName;
use lock_core::postgres::{GRANTS, PostgresBackend};
use sqlx::PgPool;

use super::{PostgresStore, Store};

/// A server that has taken from PUBLIC all that can be taken, and a role with what
/// [`GRANTS`] says that locks need.
#[derive(Debug)]
pub struct GrantedStore(PostgresStore);

/// The server looks at all rights of a statement each time that it begins to run it.
const ONLY_LOAD: &str = "more of the same statements need no other rights";

/// What can be taken from all roles.
const TAKE: &str = "\
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pg_catalog FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA pg_catalog FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON DATABASE postgres FROM PUBLIC;";

impl GrantedStore {
    /// Takes from all roles what can be taken, and grants `app` these sections of [`GRANTS`].
    ///
    /// # Panics
    ///
    /// When the server refuses.
    pub async fn prepare(pool: &PgPool, sections: &[&str]) {
        let lines: Vec<_> = sections.iter().flat_map(|of| Self::lines(of)).collect();
        let all = format!("{TAKE}\n{}", lines.join("\n"));
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(all)).execute(pool).await;
        done.unwrap();
    }

    /// The lines of a section of [`GRANTS`], by how its title begins, for the database of a test.
    ///
    /// # Panics
    ///
    /// When there is no such section.
    #[must_use]
    pub fn lines(section: &str) -> Vec<String> {
        let title = format!("-- {section}");
        let found = GRANTS.split("\n\n").find(|text| text.starts_with(&title));
        let lines = found.expect("the section exists").lines();
        lines
            .filter(|line| line.starts_with("GRANT "))
            .map(|line| line.replace("DATABASE shop", "DATABASE postgres"))
            .collect()
    }
}

impl Store for GrantedStore {
    type Backend = PostgresBackend;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[
        ("ten_thousand_guards_are_held_at_once", ONLY_LOAD),
        ("ten_thousand_waiters_on_one_name_are_served", ONLY_LOAD),
        (
            "ten_thousand_waiters_on_ten_thousand_names_are_served",
            ONLY_LOAD,
        ),
        (
            "a_guard_that_is_held_for_five_leases_is_not_lost",
            ONLY_LOAD,
        ),
    ];
    const LEASE: Option<Duration> = PostgresStore::LEASE;
    const NOTICED_WITHIN: Duration = PostgresStore::NOTICED_WITHIN;
    const GRANTED_AFTER_A_KILL: Duration = PostgresStore::GRANTED_AFTER_A_KILL;
    const LISTS_READERS: bool = PostgresStore::LISTS_READERS;

    async fn open() -> Self {
        let store = PostgresStore::open().await;
        Self::prepare(&store.pool, &["Database", "Locks", "Recovery"]).await;
        Self(store)
    }

    async fn backend(&self) -> PostgresBackend {
        self.0
            .backend_at(&self.0.server.url_for("app", "postgres"))
            .await
    }

    async fn lose(&self, name: &LockName) {
        self.0.lose(name).await;
    }

    async fn lose_all(&self) {
        self.0.lose_all().await;
    }

    async fn open_connections(&self) -> usize {
        self.0.open_connections().await
    }

    fn address(&self) -> Option<String> {
        let url = self.0.server.url_for("app", "postgres");
        Some(PostgresStore::address_of(&url))
    }
}
