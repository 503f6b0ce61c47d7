//! Servers, proxies and connection strings with which locks would lock nothing, or that do not work:
//! refused at connect, in one sentence that says what to do.

use std::error::Error;

use lock_core::postgres::PostgresBackend;
use lock_core::{LockError, LockErrorKind, LockProvider};
use lock_tests::servers::{Direction, PgBouncer, Port, PostgresServer, Proxy};
use sqlx::{AssertSqlSafe, Executor};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::{Bed, ZERO};

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
async fn a_server_whose_locks_lock_nothing_is_refused() {
    let bed = Bed::new().await;
    let fake = "CREATE SCHEMA fake; \
         CREATE FUNCTION fake.pg_try_advisory_lock(bigint) RETURNS boolean \
           LANGUAGE sql AS 'SELECT true'; \
         CREATE FUNCTION fake.pg_advisory_unlock(bigint) RETURNS boolean \
           LANGUAGE sql AS 'SELECT true'; \
         GRANT USAGE ON SCHEMA fake TO app; \
         ALTER ROLE app SET search_path = fake, pg_catalog";
    bed.pool.execute(fake).await.unwrap();
    let error = refusal(&bed.server.url_for("app", "postgres")).await;
    assert_says(&error, LockErrorKind::Misconfigured, "lock nothing");
}

#[tokio::test]
async fn a_role_that_may_not_lock_is_told_so() {
    let bed = Bed::new().await;
    let revoke = "REVOKE EXECUTE ON FUNCTION pg_try_advisory_lock(bigint) FROM PUBLIC";
    bed.pool.execute(revoke).await.unwrap();
    let error = refusal(&bed.server.url_for("app", "postgres")).await;
    assert_says(&error, LockErrorKind::Misconfigured, "grant");
}

#[tokio::test]
async fn wrong_credentials_and_a_wrong_database_are_told_without_the_password() {
    let server = PostgresServer::start().await;
    let right = server.url_for("secretive:secret", "postgres");
    PostgresBackend::connect(&right).await.unwrap();
    for (role, database, what) in [
        ("secretive:hunter2", "postgres", "the user or its password"),
        ("nobody:hunter2", "postgres", "the user or its password"),
        (
            "secretive:secret",
            "elsewhere",
            "the database does not exist",
        ),
    ] {
        let error = refusal(&server.url_for(role, database)).await;
        assert_says(&error, LockErrorKind::Misconfigured, what);
        let said = all_of(&error);
        assert!(
            !said.contains("hunter2") && !said.contains("secret\""),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_does_not_answer_is_unavailable() {
    let port = Port::reserve();
    let nobody = format!("postgres://app:hunter2@127.0.0.1:{}/shop", port.number());
    let error = refusal(&nobody).await;
    assert_says(&error, LockErrorKind::Unavailable, "nothing listens");
    assert!(!all_of(&error).contains("hunter2"));

    let unknown = "postgres://app:hunter2@no-such-host.invalid/shop";
    let error = refusal(unknown).await;
    assert_says(&error, LockErrorKind::Unavailable, "check host");
    assert!(!all_of(&error).contains("hunter2"));

    let server = PostgresServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    proxy.swallow(Direction::ToClient);
    let error = refusal(&proxy.url(&server.url())).await;
    assert_says(&error, LockErrorKind::Unavailable, "did not answer");
}

#[tokio::test]
async fn what_does_not_speak_the_protocol_is_told_from_a_server() {
    for says in [
        "-ERR unknown command\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let _ = connection.write_all(says.as_bytes()).await;
                let _ = connection.shutdown().await;
            }
        });
        let error = refusal(&format!("postgres://app@{address}/shop")).await;
        let kinds = [LockErrorKind::Misconfigured, LockErrorKind::Unavailable];
        assert!(kinds.contains(&error.kind()), "{}", all_of(&error));
        assert!(error.to_string().contains("PostgreSQL"), "{error}");
    }
}

#[tokio::test]
async fn tls_that_the_server_does_not_have_is_told() {
    let server = PostgresServer::start().await;
    let url = format!("{}?sslmode=require", server.url());
    let error = refusal(&url).await;
    assert_says(&error, LockErrorKind::Misconfigured, "sslmode");
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
    let error = refusal(&format!("{}?pool=5", server.url())).await;
    assert_says(&error, LockErrorKind::Misconfigured, "`pool`");
}

/// What a mistake leaves behind would fill the server.
#[tokio::test]
async fn a_refused_connect_leaves_no_session_behind() {
    let bed = Bed::new().await;
    bed.pool.execute("CREATE ROLE late LOGIN").await.unwrap();
    let timeout = AssertSqlSafe("ALTER ROLE late SET search_path = fake, pg_catalog".to_owned());
    bed.pool.execute(timeout).await.unwrap();
    let fake = "CREATE SCHEMA fake; GRANT USAGE ON SCHEMA fake TO late; \
         CREATE FUNCTION fake.pg_try_advisory_lock(bigint) RETURNS boolean \
           LANGUAGE sql AS 'SELECT true'";
    bed.pool.execute(fake).await.unwrap();
    refusal(&bed.server.url_for("late", "postgres")).await;
    lock_tests::eventually("the sessions end", || async {
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'late'";
        let row = bed.pool.fetch_one(sessions).await.unwrap();
        sqlx::Row::get::<i64, _>(&row, 0) == 0
    })
    .await;
}
