//! What a fence needs of its table, its role and its transaction, and says when it is missing.

use std::future::poll_fn;
use std::task::Poll;

use lock_core::FencingToken;
use lock_core::postgres::Fence;
use lock_tests::servers::Server;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::fence::{check, committed, migrated};
use crate::support::{Harness, name};

#[tokio::test]
async fn a_missing_table_says_what_to_run() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let error = committed(&harness, &name, 1).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(error.to_string().contains("Fence::MIGRATION"), "{error}");

    let make_another = "CREATE TABLE distributed_lock_fences (lock text PRIMARY KEY, token bigint)";
    harness.pool.execute(make_another).await.unwrap();
    let error = committed(&harness, &name, 1).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
}

#[tokio::test]
async fn any_number_of_processes_migrate_at_once_and_again() {
    let harness = Harness::new().await;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(harness.session().await);
    }
    let mut migrations = tokio::task::JoinSet::new();
    for mut session in sessions {
        migrations.spawn(async move { Fence::migrate(&mut session).await });
    }
    while let Some(done) = migrations.join_next().await {
        done.unwrap().unwrap();
    }
    let name = name("order:process:42");
    committed(&harness, &name, 7).await.unwrap();
    Fence::migrate(&harness.pool).await.unwrap();
    harness.pool.execute(Fence::MIGRATION).await.unwrap();
    assert!(committed(&harness, &name, 6).await.unwrap_err().is_lost());
}

#[tokio::test]
async fn a_role_needs_its_rights_and_no_more() {
    let harness = migrated().await;
    let name = name("order:process:42");
    let mut session = harness.session().await;
    session.execute("SET ROLE app").await.unwrap();

    let mut tx = session.begin().await.unwrap();
    let error = check(&mut tx, &name, 1).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(error.to_string().contains("INSERT"), "{error}");
    tx.rollback().await.unwrap();

    let grant = "GRANT SELECT, INSERT, UPDATE ON distributed_lock_fences TO app";
    harness.pool.execute(grant).await.unwrap();
    let mut tx = session.begin().await.unwrap();
    check(&mut tx, &name, 1).await.unwrap();
    tx.commit().await.unwrap();

    harness
        .pool
        .execute("DROP TABLE distributed_lock_fences")
        .await
        .unwrap();
    let error = Fence::migrate(&mut session).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(error.to_string().contains("Fence::MIGRATION"), "{error}");
}

#[tokio::test]
async fn a_read_only_transaction_is_refused_in_words() {
    let harness = migrated().await;
    let mut session = harness.session().await;
    let mut tx = session.begin_with("BEGIN READ ONLY").await.unwrap();
    let error = check(&mut tx, &name("order:process:42"), 1)
        .await
        .unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[tokio::test]
async fn the_users_lock_timeout_bounds_the_wait_for_another_writer() {
    let harness = migrated().await;
    let name = name("order:process:42");
    let mut first = harness.begin().await;
    check(&mut first, &name, 8).await.unwrap();
    let mut second = harness.begin().await;
    second
        .execute("SET LOCAL lock_timeout = '50ms'")
        .await
        .unwrap();
    let error = check(&mut second, &name, 9).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("lock_timeout"), "{error}");
}

#[tokio::test]
async fn a_token_that_is_no_bigint_is_refused_before_anything_is_sent() {
    let harness = migrated().await;
    let name = name("order:process:42");
    let mut tx = harness.begin().await;
    let error = check(&mut tx, &name, 1 << 63).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    check(&mut tx, &name, (1 << 63) - 1).await.unwrap();
    tx.commit().await.unwrap();
    assert!(
        committed(&harness, &name, 1 << 62)
            .await
            .unwrap_err()
            .is_lost()
    );
}

#[tokio::test]
async fn a_transaction_that_is_over_is_refused() {
    let harness = migrated().await;
    let name = name("order:process:42");
    let mut session = harness.session().await;
    let mut tx = session.begin().await.unwrap();
    // In sqlx, dropping a nested `begin` before its answer ends the outer transaction.
    harness.server.freeze().await;
    {
        let mut nested = std::pin::pin!(tx.begin());
        let polled = poll_fn(|cx| Poll::Ready(nested.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
    }
    harness.server.thaw().await;
    let error = check(&mut tx, &name, 1).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    drop(tx);
    let stored = harness
        .pool
        .fetch_one("SELECT count(*) FROM distributed_lock_fences");
    assert_eq!(stored.await.unwrap().get::<i64, _>(0), 0);
}

#[tokio::test]
async fn a_fence_in_a_schema_is_made_and_found_there_whatever_the_path_is() {
    let harness = Harness::new().await;
    let (odd, name) = ("Billing \"Ltd\"", name("order:process:42"));
    let fence = Fence::new().schema(odd);
    let error = fence.create_table(&harness.pool).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(error.to_string().contains("CREATE SCHEMA"), "{error}");
    let create = "CREATE SCHEMA \"Billing \"\"Ltd\"\"\"";
    harness.pool.execute(create).await.unwrap();
    fence.create_table(&harness.pool).await.unwrap();
    harness
        .pool
        .execute(AssertSqlSafe(fence.migration()))
        .await
        .unwrap();
    for path in ["public", "pg_catalog", "''"] {
        let mut tx = harness.begin().await;
        let set = AssertSqlSafe(format!("SET LOCAL search_path = {path}"));
        tx.execute(set).await.unwrap();
        fence
            .check(&mut tx, &name, FencingToken::new(7))
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
    // That of no schema is another, and missing.
    let error = committed(&harness, &name, 1).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    for wrong in ["", "pg_temp", &"x".repeat(64), "a\0b"] {
        let fence = Fence::new().schema(wrong.to_owned());
        let error = fence.create_table(&harness.pool).await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        assert!(error.to_string().contains("1 to 63 bytes"), "{error}");
    }
}

#[tokio::test]
async fn a_table_that_is_not_a_fence_of_ours_is_refused_with_what_to_do() {
    let harness = Harness::new().await;
    let neighbour = "CREATE ROLE neighbour LOGIN; GRANT CREATE ON SCHEMA public TO PUBLIC";
    harness.pool.execute(neighbour).await.unwrap();
    let mut neighbours = harness.session().await;
    neighbours.execute("SET ROLE neighbour").await.unwrap();
    let mut app = harness.session().await;
    app.execute("SET SESSION AUTHORIZATION app").await.unwrap();

    // As it should be, and another's.
    neighbours.execute(Fence::MIGRATION).await.unwrap();
    for said in [
        Fence::migrate(&harness.pool).await.unwrap_err(),
        Fence::migrate(&mut app).await.unwrap_err(),
    ] {
        assert!(said.is_misconfigured(), "{said}");
        let said = said.to_string();
        assert!(said.contains("belongs to the role neighbour"), "{said}");
        assert!(
            said.contains("ALTER TABLE distributed_lock_fences OWNER TO"),
            "{said}"
        );
    }
    // A member of a role need not have wanted that.
    harness
        .pool
        .execute("GRANT neighbour TO app")
        .await
        .unwrap();
    Fence::migrate(&mut app).await.unwrap_err();

    let give = "ALTER TABLE distributed_lock_fences OWNER TO app";
    harness.pool.execute(give).await.unwrap();
    Fence::migrate(&mut app).await.unwrap();

    for (change, back, said) in [
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
             CREATE TRIGGER t BEFORE INSERT ON distributed_lock_fences \
               FOR EACH ROW EXECUTE FUNCTION f()",
            "DROP FUNCTION f CASCADE",
            "triggers",
        ),
        (
            "CREATE RULE r AS ON INSERT TO distributed_lock_fences DO INSTEAD NOTHING",
            "DROP RULE r ON distributed_lock_fences",
            "rules",
        ),
        (
            "ALTER TABLE distributed_lock_fences ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE distributed_lock_fences DISABLE ROW LEVEL SECURITY",
            "row security",
        ),
        (
            "ALTER TABLE distributed_lock_fences ADD COLUMN more text",
            "ALTER TABLE distributed_lock_fences DROP COLUMN more",
            "other columns",
        ),
        (
            "ALTER TABLE distributed_lock_fences ALTER COLUMN token TYPE numeric",
            "ALTER TABLE distributed_lock_fences ALTER COLUMN token TYPE bigint",
            "other columns",
        ),
    ] {
        harness.pool.execute(change).await.unwrap();
        let error = Fence::migrate(&mut app).await.unwrap_err();
        assert!(error.is_misconfigured(), "{change}: {error}");
        assert!(error.to_string().contains(said), "{change}: {error}");
        harness.pool.execute(back).await.unwrap();
        Fence::migrate(&mut app).await.unwrap();
    }
}
