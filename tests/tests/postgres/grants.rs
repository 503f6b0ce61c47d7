//! Roles on a server that has taken all rights from PUBLIC: what is granted is enough, and what is
//! missing is named with the line that grants it.

use lock_core::postgres::{Fence, PostgresBackend};
use lock_core::{FencingToken, LockErrorKind, LockProvider, LockSettings, ProviderKind};
use lock_tests::GrantedStore;
use lock_tests::servers::PostgresServer;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Executor, PgPool};
use tempfile::tempdir;

use crate::support::{PATIENCE, ZERO, answers, name, order};

async fn server(sections: &[&str]) -> (PostgresServer, PgPool) {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    pool.execute("CREATE SCHEMA billing").await.unwrap();
    Fence::new()
        .schema("billing")
        .create_table(&pool)
        .await
        .unwrap();
    GrantedStore::prepare(&pool, sections).await;
    (server, pool)
}

/// Takes the right of a line away.
async fn revoke(pool: &PgPool, line: &str) {
    let revoke = line
        .replacen("GRANT", "REVOKE", 1)
        .replace(" TO app", " FROM app");
    pool.execute(AssertSqlSafe(revoke)).await.unwrap();
}

async fn grant(pool: &PgPool, line: &str) {
    pool.execute(AssertSqlSafe(line.to_owned())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_right_is_named_at_connect_with_the_line_that_grants_it() {
    let (server, pool) = server(&["Database", "Locks", "Recovery"]).await;
    let url = server.url_for("app", "postgres");
    for line in ["Database", "Locks"]
        .into_iter()
        .flat_map(GrantedStore::lines)
    {
        revoke(&pool, &line).await;
        let error = PostgresBackend::connect(&url).await.unwrap_err();
        assert_eq!(
            error.kind(),
            LockErrorKind::Misconfigured,
            "{line}: {error:?}"
        );
        let (said, line) = (error.to_string(), line.trim_end_matches(';'));
        assert!(said.contains(line), "{line}: {said}");
        // And nothing else.
        assert_eq!(said.matches("GRANT ").count(), 1, "{said}");
        grant(&pool, line).await;
    }
    PostgresBackend::connect(&url).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_missing_rights_are_named_together() {
    let (server, pool) = server(&["Database", "Locks", "Recovery"]).await;
    let become_other = "CREATE ROLE \"the owner\"; GRANT \"the owner\" TO app; \
         ALTER ROLE app SET role = \"the owner\"";
    pool.execute(become_other).await.unwrap();
    for line in GrantedStore::lines("Locks") {
        grant(&pool, &line.replace(" TO app", " TO \"the owner\"")).await;
    }
    let rights = ["pg_notify(text, text)", "pg_advisory_unlock(bigint)"];
    let on = |right| format!("EXECUTE ON FUNCTION pg_catalog.{right}");
    for right in rights {
        let revoke = format!("REVOKE {} FROM app, \"the owner\"", on(right));
        pool.execute(AssertSqlSafe(revoke)).await.unwrap();
    }
    let url = server.url_for("app", "postgres");
    let said = PostgresBackend::connect(&url)
        .await
        .unwrap_err()
        .to_string();
    for right in rights {
        let line = format!("GRANT {} TO \"the owner\";", on(right));
        assert!(said.contains(&line), "{line}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fleet_marker_needs_what_is_granted_for_it() {
    let (server, pool) = server(&["Database", "Locks", "Fleet marker"]).await;
    let directory = tempdir().unwrap();
    let url = server.url_for("app", "postgres");
    let in_postgres = || LockSettings::new().database_url(&url);
    let first = LockProvider::connect(in_postgres()).await.unwrap();
    let in_files = in_postgres()
        .provider(ProviderKind::File)
        .dir(directory.path().join("locks"));
    let refused = LockProvider::connect(in_files).await.unwrap_err();
    assert!(
        refused.to_string().contains("held by `postgres`"),
        "{refused}"
    );
    drop(first);
    for line in GrantedStore::lines("Fleet marker") {
        revoke(&pool, &line).await;
        let error = LockProvider::connect(in_postgres()).await.unwrap_err();
        assert!(error.is_misconfigured(), "{line}: {error:?}");
        let said = error.to_string();
        assert!(said.contains(&line), "{line}: {said}");
        grant(&pool, &line).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_in_a_transaction_needs_what_is_granted_for_it() {
    let (server, pool) = server(&["Database", "lock_in_transaction"]).await;
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    let url = server.url_for("app", "postgres");
    let app = PgPoolOptions::new().connect(&url).await.unwrap();
    let name = order();
    let holder = LockProvider::new(PostgresBackend::connect(&server.url()).await.unwrap());
    let mut tx = app.begin().await.unwrap();
    backend
        .lock_in_transaction(&mut tx, &name, ZERO)
        .await
        .unwrap();
    tx.rollback().await.unwrap();
    for line in GrantedStore::lines("lock_in_transaction") {
        let guard = holder.lock(&name).unwrap().acquire(PATIENCE).await.unwrap();
        revoke(&pool, &line).await;
        let mut tx = app.begin().await.unwrap();
        let locked = backend.lock_in_transaction(&mut tx, &name, PATIENCE).await;
        let error = locked.unwrap_err();
        assert!(error.is_misconfigured(), "{line}: {error:?}");
        assert!(error.to_string().contains(&line), "{line}: {error}");
        assert!(answers(&mut tx).await, "the transaction goes on");
        tx.rollback().await.unwrap();
        grant(&pool, &line).await;
        guard.release().await.unwrap();
    }
    let mut tx = app.begin().await.unwrap();
    let locked = backend.lock_in_transaction(&mut tx, &name, ZERO).await;
    locked.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_needs_what_is_granted_for_it() {
    let (server, pool) = server(&["Database", "Fence"]).await;
    let fence = Fence::new().schema("billing");
    let lines = GrantedStore::lines("Fence");
    let url = server.url_for("app", "postgres");
    let app = PgPoolOptions::new().connect(&url).await.unwrap();
    let name = name("order:process:42");
    for line in &lines {
        revoke(&pool, line).await;
        let mut tx = app.begin().await.unwrap();
        let error = fence
            .check(&mut tx, &name, FencingToken::new(7))
            .await
            .unwrap_err();
        assert!(error.is_misconfigured(), "{line}: {error:?}");
        tx.rollback().await.unwrap();
        grant(&pool, line).await;
    }
    for _ in 0..2 {
        let mut tx = app.begin().await.unwrap();
        fence
            .check(&mut tx, &name, FencingToken::new(7))
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
}
