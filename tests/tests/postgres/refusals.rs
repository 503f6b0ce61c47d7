//! Servers, proxies and settings with which locks would lock nothing: refused at connect, in one
//! sentence that says what to do.

use std::error::Error;

use lock_core::postgres::PostgresBackend;
use lock_core::{LockError, LockErrorKind, LockProvider};
use lock_tests::servers::{PgBouncer, PostgresServer};
use sqlx::{AssertSqlSafe, Executor};

use crate::support::{Harness, ZERO};

/// The refusal of this connection string.
async fn refusal(url: &str) -> LockError {
    match PostgresBackend::connect(url).await {
        Ok(_) => panic!("{url} was accepted"),
        Err(error) => error,
    }
}

/// An error with all that it came from.
fn all_of(error: &LockError) -> String {
    let mut said = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        said += &format!(" {error} {error:?}");
        source = error.source();
    }
    said
}

#[track_caller]
fn assert_says(error: &LockError, kind: LockErrorKind, what: &str) {
    assert_eq!(error.kind(), kind, "{}", all_of(error));
    assert!(error.to_string().contains(what), "{error}");
}

#[tokio::test]
async fn a_standby_is_refused_until_it_is_promoted() {
    let primary = PostgresServer::start().await;
    let standby = primary.standby().await;
    let error = refusal(&standby.url()).await;
    assert_says(
        &error,
        LockErrorKind::Misconfigured,
        "connect to the primary",
    );
    standby.promote().await;
    PostgresBackend::connect(&standby.url()).await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_shares_sessions_is_refused_and_one_that_does_not_is_not() {
    let server = PostgresServer::start().await;
    let shared = PgBouncer::transaction(&server).await;
    let error = refusal(&shared.url()).await;
    assert_says(&error, LockErrorKind::Misconfigured, "transaction pooling");
    let own = PgBouncer::session(&server).await;
    let backend = PostgresBackend::connect(&own.url()).await.unwrap();
    let locks = LockProvider::new(backend);
    let guard = locks
        .lock("order:process:42")
        .unwrap()
        .acquire(ZERO)
        .await
        .unwrap();
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_pooler_that_does_not_know_what_the_driver_sends_is_refused_with_its_setting() {
    let server = PostgresServer::start().await;
    let as_installed = [("ignore_startup_parameters", "options")];
    let pooler = PgBouncer::with(&server, &as_installed).await;
    let error = refusal(&pooler.url()).await;
    let setting = "ignore_startup_parameters = extra_float_digits";
    assert_says(&error, LockErrorKind::Misconfigured, setting);
}

#[tokio::test]
async fn a_pooler_that_takes_no_simple_queries_is_refused_with_its_setting() {
    let server = PostgresServer::start().await;
    let settings = [("pool_mode", "session"), ("disable_pqexec", "1")];
    let pooler = PgBouncer::with(&server, &settings).await;
    let error = refusal(&pooler.url()).await;
    assert_says(&error, LockErrorKind::Misconfigured, "disable_pqexec = 0");
}

#[tokio::test]
async fn a_line_of_pg_hba_that_lets_the_user_in_by_no_password_is_named() {
    let harness = Harness::new().await;
    let crew = "CREATE ROLE crew NOLOGIN";
    harness.pool.execute(crew).await.unwrap();
    for (method, role, says) in [
        ("gss", "app", "`gss`"),
        ("ident", "app", "`ident`"),
        ("trust", "crew", "ALTER ROLE crew LOGIN"),
        ("trust", "nobody", "CREATE ROLE nobody LOGIN"),
    ] {
        let lines = format!(
            "local all all trust\nhost all postgres all trust\nhost all all all {method}\n"
        );
        harness.server.admit(&lines).await;
        let error = refusal(&harness.server.url_for(role, "postgres")).await;
        assert_says(&error, LockErrorKind::Misconfigured, says);
    }
}

#[tokio::test]
async fn a_server_whose_locks_lock_nothing_is_refused() {
    let harness = Harness::new().await;
    for function in ["pg_advisory_unlock", "pg_try_advisory_lock"] {
        let fake = AssertSqlSafe(format!(
            "ALTER FUNCTION pg_catalog.{function}(bigint) RENAME TO real_{function}; \
             CREATE FUNCTION pg_catalog.{function}(bigint) RETURNS boolean \
               LANGUAGE sql AS 'SELECT true'"
        ));
        harness.pool.execute(fake).await.unwrap();
        let error = refusal(&harness.server.url_for("app", "postgres")).await;
        assert_says(&error, LockErrorKind::Misconfigured, "lock nothing");
    }
}

#[tokio::test]
async fn a_role_that_may_not_lock_is_told_so() {
    let harness = Harness::new().await;
    let revoke = "REVOKE EXECUTE ON FUNCTION pg_try_advisory_lock(bigint) FROM PUBLIC";
    harness.pool.execute(revoke).await.unwrap();
    let error = refusal(&harness.server.url_for("app", "postgres")).await;
    let line = "GRANT EXECUTE ON FUNCTION pg_catalog.pg_try_advisory_lock(bigint) TO app;";
    assert_says(&error, LockErrorKind::Misconfigured, line);
}

#[tokio::test]
async fn what_the_builder_is_given_is_checked() {
    let server = PostgresServer::start().await;
    let builder = || PostgresBackend::builder(server.url());
    for lease in [ZERO, std::time::Duration::MAX] {
        let error = builder().lease(lease).connect().await.unwrap_err();
        assert_says(&error, LockErrorKind::Misconfigured, "lease");
    }
    let error = builder().token_epoch(127).connect().await.unwrap_err();
    assert_says(&error, LockErrorKind::Misconfigured, "epoch");
}

/// What a mistake leaves behind would fill the server.
#[tokio::test]
async fn a_refused_connect_leaves_no_session_behind() {
    let harness = Harness::new().await;
    harness
        .pool
        .execute("CREATE ROLE late LOGIN")
        .await
        .unwrap();
    let fake = "ALTER FUNCTION pg_catalog.pg_try_advisory_lock(bigint) RENAME TO real_try; \
         CREATE FUNCTION pg_catalog.pg_try_advisory_lock(bigint) RETURNS boolean \
           LANGUAGE sql AS 'SELECT true'";
    harness.pool.execute(fake).await.unwrap();
    refusal(&harness.server.url_for("late", "postgres")).await;
    lock_tests::eventually("the sessions end", || async {
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'late'";
        let row = harness.pool.fetch_one(sessions).await.unwrap();
        sqlx::Row::get::<i64, _>(&row, 0) == 0
    })
    .await;
}

/// A limit that is shorter than the lease would free locks that are counted on.
#[tokio::test]
async fn a_server_that_does_not_keep_the_limits_of_the_session_is_refused() {
    let harness = Harness::new().await;
    let url = harness.server.url_for("app", "postgres");
    PostgresBackend::connect(&url).await.unwrap();
    let fake =
        "ALTER FUNCTION pg_catalog.set_config(text, text, boolean) RENAME TO real_set_config";
    harness.pool.execute(fake).await.unwrap();
    for (setting, value) in [
        ("idle_session_timeout", "5s"),
        ("idle_session_timeout", "0"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("statement_timeout", "60s"),
        ("lock_timeout", "0"),
        ("tcp_user_timeout", "5s"),
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_count", "1"),
    ] {
        // One that takes all settings but this.
        let deaf = AssertSqlSafe(format!(
            "CREATE OR REPLACE FUNCTION pg_catalog.set_config(text, text, boolean) RETURNS text \
               LANGUAGE sql AS $$ SELECT CASE $1 WHEN '{setting}' THEN $2 \
               ELSE pg_catalog.real_set_config($1, $2, $3) END $$; \
             ALTER ROLE app SET {setting} = '{value}'"
        ));
        harness.pool.execute(deaf).await.unwrap();
        let error = refusal(&url).await;
        assert_says(&error, LockErrorKind::Misconfigured, setting);
        let reset = AssertSqlSafe(format!("ALTER ROLE app RESET {setting}"));
        harness.pool.execute(reset).await.unwrap();
    }
}
