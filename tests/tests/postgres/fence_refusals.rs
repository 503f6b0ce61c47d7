//! What a fence needs of its table, its role and its transaction, and says when it is missing.

use std::future::poll_fn;
use std::task::Poll;

use lock_core::postgres::Fence;
use lock_tests::servers::Server;
use sqlx::{Connection, Executor, Row};

use crate::fence::{check, committed, migrated};
use crate::support::{Bed, name};

#[tokio::test]
async fn a_missing_table_says_what_to_run() {
    let bed = Bed::new().await;
    let name = name("order:process:42");
    let error = committed(&bed, &name, 1).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(error.to_string().contains("Fence::MIGRATION"), "{error}");

    let make_another = "CREATE TABLE distributed_lock_fences (lock text PRIMARY KEY, token bigint)";
    bed.pool.execute(make_another).await.unwrap();
    let error = committed(&bed, &name, 1).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
}

#[tokio::test]
async fn any_number_of_processes_migrate_at_once_and_again() {
    let bed = Bed::new().await;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(bed.session().await);
    }
    let mut migrations = tokio::task::JoinSet::new();
    for mut session in sessions {
        migrations.spawn(async move { Fence::migrate(&mut session).await });
    }
    while let Some(done) = migrations.join_next().await {
        done.unwrap().unwrap();
    }
    let name = name("order:process:42");
    committed(&bed, &name, 7).await.unwrap();
    Fence::migrate(&bed.pool).await.unwrap();
    bed.pool.execute(Fence::MIGRATION).await.unwrap();
    assert!(committed(&bed, &name, 6).await.unwrap_err().is_lost());
}

#[tokio::test]
async fn a_role_needs_its_rights_and_no_more() {
    let bed = migrated().await;
    let name = name("order:process:42");
    let mut session = bed.session().await;
    session.execute("SET ROLE app").await.unwrap();

    let mut tx = session.begin().await.unwrap();
    let error = check(&mut tx, &name, 1).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(error.to_string().contains("INSERT"), "{error}");
    tx.rollback().await.unwrap();

    let grant = "GRANT SELECT, INSERT, UPDATE ON distributed_lock_fences TO app";
    bed.pool.execute(grant).await.unwrap();
    let mut tx = session.begin().await.unwrap();
    check(&mut tx, &name, 1).await.unwrap();
    tx.commit().await.unwrap();

    bed.pool
        .execute("DROP TABLE distributed_lock_fences")
        .await
        .unwrap();
    let error = Fence::migrate(&mut session).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(error.to_string().contains("Fence::MIGRATION"), "{error}");
}

#[tokio::test]
async fn a_read_only_transaction_is_refused_in_words() {
    let bed = migrated().await;
    let mut session = bed.session().await;
    let mut tx = session.begin_with("BEGIN READ ONLY").await.unwrap();
    let error = check(&mut tx, &name("order:process:42"), 1)
        .await
        .unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[tokio::test]
async fn the_users_lock_timeout_bounds_the_wait_for_another_writer() {
    let bed = migrated().await;
    let name = name("order:process:42");
    let mut first = bed.begin().await;
    check(&mut first, &name, 8).await.unwrap();
    let mut second = bed.begin().await;
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
    let bed = migrated().await;
    let name = name("order:process:42");
    let mut tx = bed.begin().await;
    let error = check(&mut tx, &name, 1 << 63).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    check(&mut tx, &name, (1 << 63) - 1).await.unwrap();
    tx.commit().await.unwrap();
    assert!(committed(&bed, &name, 1 << 62).await.unwrap_err().is_lost());
}

#[tokio::test]
async fn a_transaction_that_is_over_is_refused() {
    let bed = migrated().await;
    let name = name("order:process:42");
    let mut session = bed.session().await;
    let mut tx = session.begin().await.unwrap();
    // In sqlx, dropping a nested `begin` before its answer ends the outer transaction.
    bed.server.freeze().await;
    {
        let mut nested = std::pin::pin!(tx.begin());
        let polled = poll_fn(|cx| Poll::Ready(nested.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
    }
    bed.server.thaw().await;
    let error = check(&mut tx, &name, 1).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    drop(tx);
    let stored = bed
        .pool
        .fetch_one("SELECT count(*) FROM distributed_lock_fences");
    assert_eq!(stored.await.unwrap().get::<i64, _>(0), 0);
}
