//! Where a lock in a transaction would protect nothing, it is refused.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use crate::support::{Harness, SHORT, ZERO, answers, name, sqlstate};

#[tokio::test]
async fn only_read_committed_is_accepted() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let mut session = harness.session().await;
    for (level, accepted) in [
        ("READ UNCOMMITTED", true), // is READ COMMITTED in PostgreSQL
        ("READ COMMITTED", true),
        ("REPEATABLE READ", false),
        ("SERIALIZABLE", false),
    ] {
        let begin = AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {level}"));
        let mut tx = session.begin_with(begin).await.unwrap();
        match harness.lock(&mut tx, &name, ZERO).await {
            Ok(()) => assert!(accepted, "{level}"),
            Err(error) => {
                assert!(!accepted, "{level}: {error}");
                assert!(error.is_misconfigured(), "{error}");
                assert!(error.to_string().contains("READ COMMITTED"), "{error}");
                assert!(answers(&mut tx).await);
            }
        }
        assert_eq!(harness.is_free(&name).await, !accepted, "{level}");
        tx.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn a_transaction_that_is_over_cannot_lock() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let mut tx = harness.begin().await;
    tx.execute("COMMIT").await.unwrap();
    for wait in [ZERO, SHORT] {
        let error = harness.lock(&mut tx, &name, wait).await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        assert_eq!(sqlstate(&error).as_deref(), Some("25P01"));
    }
    assert!(harness.is_free(&name).await);
}

#[tokio::test]
async fn a_transaction_in_another_database_is_refused() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let mut tx = harness.begin().await;
    harness.lock(&mut tx, &name, ZERO).await.unwrap();
    tx.rollback().await.unwrap();

    harness
        .pool
        .execute("CREATE DATABASE elsewhere TEMPLATE template0")
        .await
        .unwrap();
    let mut elsewhere = harness.session_in("elsewhere").await;
    let mut tx = elsewhere.begin().await.unwrap();
    let error = harness.lock(&mut tx, &name, ZERO).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(error.to_string().contains("another database"), "{error}");
    assert!(answers(&mut tx).await);
    assert_eq!(locked_by(&mut tx).await, 0);
}

/// How many advisory locks a session has.
async fn locked_by(connection: &mut PgConnection) -> i64 {
    let locked = "SELECT count(*) FROM pg_locks \
         WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    connection.fetch_one(locked).await.unwrap().get(0)
}

#[tokio::test]
async fn a_transaction_on_another_server_is_refused() {
    let (here, there) = tokio::join!(Harness::new(), Harness::new());
    let name = name("order:process:42");
    let mut tx = there.begin().await;
    let error = here.lock(&mut tx, &name, ZERO).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(error.to_string().contains("another server"), "{error}");
    assert_eq!(locked_by(&mut tx).await, 0);
}

#[tokio::test]
async fn a_transaction_on_a_standby_is_refused() {
    let primary = Harness::new().await;
    let standby = primary.server.standby().await;
    let name = name("order:process:42");
    let pool = standby.pool().await;
    let mut tx = pool.begin().await.unwrap();
    let error = primary.lock(&mut tx, &name, ZERO).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(error.to_string().contains("standby"), "{error}");
    assert_eq!(locked_by(&mut tx).await, 0);
}

#[tokio::test]
async fn a_search_path_cannot_put_other_functions_in_front() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let _holder = harness.hold(&name).await;
    harness
        .pool
        .execute(
            "CREATE SCHEMA fake; \
             CREATE FUNCTION fake.pg_try_advisory_xact_lock(bigint) RETURNS boolean \
               LANGUAGE sql AS 'SELECT true'; \
             CREATE FUNCTION fake.pg_advisory_xact_lock(bigint) RETURNS void \
               LANGUAGE sql AS ''",
        )
        .await
        .unwrap();
    let mut tx = harness.begin().await;
    tx.execute("SET LOCAL search_path = fake, pg_catalog")
        .await
        .unwrap();
    for wait in [ZERO, SHORT] {
        assert!(
            harness
                .lock(&mut tx, &name, wait)
                .await
                .unwrap_err()
                .is_contended()
        );
    }
}
