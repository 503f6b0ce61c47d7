//! What ends a wait, or a transaction, from outside: an answer that says so, and no lock that stays.

use std::time::Duration;

use lock_core::{LockError, LockName};
use lock_tests::eventually;
use sqlx::{AssertSqlSafe, Connection, Executor, Postgres, Row, Transaction};

use crate::support::{Harness, PATIENCE, SHORT, ZERO, answers, name, pid, setting, sqlstate};

/// A wait that ends by itself, and not before it was seen on a busy machine.
const SEEN: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_transaction_that_has_failed_says_so() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let mut tx = harness.begin().await;
    tx.execute("SAVEPOINT distributed_lock").await.unwrap();
    tx.execute("SELECT 1 / 0").await.unwrap_err();
    for wait in [ZERO, SHORT] {
        let error = harness.lock(&mut tx, &name, wait).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        assert!(error.to_string().contains("roll it back"), "{error}");
        assert_eq!(sqlstate(&error).as_deref(), Some("25P02"));
    }
    assert!(!answers(&mut tx).await, "the failure was hidden");
    tx.rollback().await.unwrap();
    assert!(harness.is_free(&name).await);
}

#[tokio::test]
async fn an_error_that_ends_the_users_work_gives_the_lock_back() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let mut session = harness.session().await;
    let mut tx = session.begin().await.unwrap();
    harness.lock(&mut tx, &name, ZERO).await.unwrap();
    tx.execute("SAVEPOINT mine").await.unwrap();
    tx.execute("SELECT 1 / 0").await.unwrap_err();
    assert!(
        !harness.is_free(&name).await,
        "it can go on from the savepoint"
    );
    tx.execute("ROLLBACK TO mine").await.unwrap();
    assert!(!harness.is_free(&name).await);
    tx.execute("RELEASE mine").await.unwrap();
    // Now it cannot go on, and nothing that it wrote will be there.
    // (The server tells the error first, and ends the transaction then.)
    tx.execute("SELECT 1 / 0").await.unwrap_err();
    eventually("the lock is free", || harness.is_free(&name)).await;
    tx.rollback().await.unwrap();
    assert!(harness.is_free(&name).await);
    assert!(answers(&mut session).await);
}

#[tokio::test]
async fn the_users_statement_timeout_ends_the_wait() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let holder = harness.hold(&name).await;
    let mut tx = harness.begin().await;
    tx.execute("SET LOCAL statement_timeout = '2s'")
        .await
        .unwrap();
    let error = harness.lock(&mut tx, &name, PATIENCE).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("statement_timeout"), "{error}");
    assert_eq!(setting(&mut tx, "statement_timeout").await, "2s");
    assert_eq!(setting(&mut tx, "lock_timeout").await, "0");
    holder.release().await;
    assert!(harness.is_free(&name).await);
    harness.lock(&mut tx, &name, ZERO).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_statement_leaves_the_transaction_usable() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let holder = harness.hold(&name).await;
    let mut tx = harness.begin().await;
    let pid = pid(&mut tx).await;
    let (refused, ()) = tokio::join!(harness.lock(&mut tx, &name, PATIENCE), async {
        harness.waiting(1).await;
        tell(&harness, "pg_cancel_backend", pid).await;
    });
    let error = refused.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(sqlstate(&error).as_deref(), Some("57014"));
    holder.release().await;
    assert!(harness.is_free(&name).await);
    harness.lock(&mut tx, &name, ZERO).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_terminated_session_is_unavailable() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let holder = harness.hold(&name).await;
    let mut tx = harness.begin().await;
    let pid = pid(&mut tx).await;
    let (refused, ()) = tokio::join!(harness.lock(&mut tx, &name, PATIENCE), async {
        harness.waiting(1).await;
        tell(&harness, "pg_terminate_backend", pid).await;
    });
    let error = refused.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    let error = harness.lock(&mut tx, &name, ZERO).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    holder.release().await;
    assert!(harness.is_free(&name).await);
}

async fn tell(harness: &Harness, function: &str, pid: i32) {
    let call = AssertSqlSafe(format!("SELECT {function}({pid})"));
    assert!(
        harness
            .pool
            .fetch_one(call)
            .await
            .unwrap()
            .get::<bool, _>(0)
    );
}

#[tokio::test]
async fn a_deadlock_ends_one_of_its_transactions_waits() {
    let harness = Harness::new().await;
    let (a, b) = (name("account:transfer:3"), name("account:transfer:7"));
    let (mut first, mut second) = (harness.begin().await, harness.begin().await);
    harness.lock(&mut first, &a, ZERO).await.unwrap();
    harness.lock(&mut second, &b, ZERO).await.unwrap();
    let ends = tokio::join!(
        lock_and_end(&harness, first, &b),
        lock_and_end(&harness, second, &a)
    );
    let mut errors = [ends.0, ends.1].into_iter().filter_map(Result::err);
    let error = errors.next().expect("one of them had to be refused");
    assert!(errors.next().is_none(), "both were refused");
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(sqlstate(&error).as_deref(), Some("40P01"));
    assert!(harness.is_free(&a).await && harness.is_free(&b).await);
}

/// Commits with the lock, and rolls back without.
async fn lock_and_end(
    harness: &Harness,
    mut tx: Transaction<'_, Postgres>,
    name: &LockName,
) -> Result<(), LockError> {
    let locked = harness.lock(&mut tx, name, PATIENCE).await;
    assert!(answers(&mut tx).await);
    match &locked {
        Ok(()) => tx.commit().await.unwrap(),
        Err(_) => tx.rollback().await.unwrap(),
    }
    locked
}

#[tokio::test]
async fn a_full_lock_table_is_unavailable_and_costs_no_lock_that_was_had() {
    let harness = Harness::with(&[
        ("max_locks_per_transaction", "10"),
        ("max_connections", "10"),
    ])
    .await;
    let mut tx = harness.begin().await;
    let mut had = Vec::new();
    let error = loop {
        let name = LockName::new("order", "process", had.len()).unwrap();
        match harness.lock(&mut tx, &name, ZERO).await {
            Ok(()) => had.push(name),
            Err(error) => break error,
        }
        assert!(had.len() < 20_000, "the lock table has no end");
    };
    assert!(error.is_unavailable(), "{error}");
    assert!(
        error.to_string().contains("max_locks_per_transaction"),
        "{error}"
    );
    harness.lock(&mut tx, &had[0], ZERO).await.unwrap();
    tx.rollback().await.unwrap();
    assert!(harness.is_free(&had[0]).await);
}

#[tokio::test]
async fn a_dropped_wait_is_undone_by_dropping_the_transaction() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let holder = harness.hold(&name).await;
    let mut session = harness.session().await;
    let mut tx = session.begin().await.unwrap();
    tokio::select! {
        done = harness.lock(&mut tx, &name, PATIENCE) => panic!("it is held: {done:?}"),
        () = harness.waiting(1) => {}
    }
    drop(tx);
    holder.release().await;
    // The session answers when the wait is over, and what it got is rolled back by then.
    assert!(answers(&mut session).await);
    assert!(harness.is_free(&name).await);
    assert_eq!(setting(&mut session, "lock_timeout").await, "0");
}

#[tokio::test]
async fn a_dropped_wait_that_fails_later_is_not_taken_for_contention() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let _holder = harness.hold(&name).await;
    let mut tx = harness.begin().await;
    tokio::select! {
        done = harness.lock(&mut tx, &name, SEEN) => panic!("it is held: {done:?}"),
        () = harness.waiting(1) => {}
    }
    // What this one gets is the answer to the other.
    let error = harness.lock(&mut tx, &name, PATIENCE).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    tx.rollback().await.unwrap();
}

#[tokio::test]
async fn a_dropped_wait_that_fails_later_cannot_be_committed() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let _holder = harness.hold(&name).await;
    harness
        .pool
        .execute("CREATE TABLE written (what text)")
        .await
        .unwrap();
    let mut session = harness.session().await;
    let mut tx = session.begin().await.unwrap();
    tx.execute("INSERT INTO written VALUES ('locked')")
        .await
        .unwrap();
    tokio::select! {
        done = harness.lock(&mut tx, &name, SEEN) => panic!("it is held: {done:?}"),
        () = harness.waiting(1) => {}
    }
    tx.commit().await.unwrap_err();
    let written = harness.pool.fetch_one("SELECT count(*) FROM written").await;
    assert_eq!(written.unwrap().get::<i64, _>(0), 0);
    assert!(answers(&mut session).await);
}
