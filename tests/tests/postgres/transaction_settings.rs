//! A lock in a transaction leaves the settings and the savepoints of the transaction as they were.

use std::time::Duration;

use lock_tests::Lateness;
use sqlx::{Connection, Executor, Row};

use crate::support::{Harness, PATIENCE, SHORT, ZERO, name, setting};

#[tokio::test]
async fn the_wait_counts_and_not_the_users_lock_timeout() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let holder = harness.hold(&name).await;
    let mut tx = harness.begin().await;
    tx.execute("SET LOCAL lock_timeout = '1ms'").await.unwrap();
    let late = Lateness::of(SHORT);
    let error = harness.lock(&mut tx, &name, SHORT).await.unwrap_err();
    late.check(Duration::from_millis(100)).await;
    assert!(error.is_contended(), "{error}");
    let (locked, ()) = tokio::join!(harness.lock(&mut tx, &name, PATIENCE), async {
        harness.waiting(1).await;
        holder.release().await;
    });
    locked.unwrap();
    assert_eq!(setting(&mut tx, "lock_timeout").await, "1ms");
}

/// How a session and its transaction may have set what a wait needs to set.
const SETTINGS: [(&str, &str); 5] = [
    ("SELECT 1", "SELECT 1"),
    ("SET lock_timeout = '1h'", "SELECT 1"),
    ("SET lock_timeout = '90s'", "SET lock_timeout = '1234ms'"),
    ("SET lock_timeout = '90s'", "SET LOCAL lock_timeout = '7s'"),
    (
        "SELECT 1",
        "SET lock_timeout = '5s'; SET LOCAL lock_timeout = '1d'",
    ),
];

#[tokio::test]
async fn settings_are_as_they_were_whatever_the_answer_was() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    for (before, inside) in SETTINGS {
        for answer in ["free", "served", "timeout", "busy", "savepoint"] {
            for commit in [true, false] {
                let case = format!("{before}; {inside}; {answer}; commit {commit}");
                let mut session = harness.session().await;
                session.execute(before).await.unwrap();
                let mut tx = session.begin().await.unwrap();
                tx.execute(inside).await.unwrap();
                let within = setting(&mut tx, "lock_timeout").await;

                let holder = match answer {
                    "free" => None,
                    _ => Some(harness.hold(&name).await),
                };
                match (answer, holder) {
                    ("free", _) => harness.lock(&mut tx, &name, PATIENCE).await.unwrap(),
                    ("served", Some(holder)) => {
                        let (locked, ()) =
                            tokio::join!(harness.lock(&mut tx, &name, PATIENCE), async {
                                harness.waiting(1).await;
                                holder.release().await;
                            });
                        locked.unwrap();
                    }
                    ("busy", _holder) => {
                        assert!(
                            harness
                                .lock(&mut tx, &name, ZERO)
                                .await
                                .unwrap_err()
                                .is_contended()
                        );
                    }
                    ("savepoint", Some(holder)) => {
                        tx.execute("SAVEPOINT mine").await.unwrap();
                        let (locked, ()) =
                            tokio::join!(harness.lock(&mut tx, &name, PATIENCE), async {
                                harness.waiting(1).await;
                                holder.release().await;
                            });
                        locked.unwrap();
                        assert_eq!(setting(&mut tx, "lock_timeout").await, within, "{case}");
                        tx.execute("ROLLBACK TO mine").await.unwrap();
                    }
                    (_, _holder) => {
                        let wait = Duration::from_millis(5);
                        assert!(
                            harness
                                .lock(&mut tx, &name, wait)
                                .await
                                .unwrap_err()
                                .is_contended()
                        );
                    }
                }
                assert_eq!(setting(&mut tx, "lock_timeout").await, within, "{case}");
                if commit {
                    tx.commit().await.unwrap();
                } else {
                    tx.rollback().await.unwrap();
                }
                let after = setting(&mut session, "lock_timeout").await;
                assert_eq!(
                    after,
                    control(&harness, before, inside, commit).await,
                    "{case}"
                );
            }
        }
    }
}

/// What is set after the same transaction without the lock.
async fn control(
    harness: &Harness,
    before: &'static str,
    inside: &'static str,
    commit: bool,
) -> String {
    let mut session = harness.session().await;
    session.execute(before).await.unwrap();
    session.execute("BEGIN").await.unwrap();
    session.execute(inside).await.unwrap();
    let end = if commit { "COMMIT" } else { "ROLLBACK" };
    session.execute(end).await.unwrap();
    setting(&mut session, "lock_timeout").await
}

#[tokio::test]
async fn what_is_set_after_the_wait_counts() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let mut session = harness.session().await;
    let holder = harness.hold(&name).await;
    let mut tx = session.begin().await.unwrap();
    let (locked, ()) = tokio::join!(harness.lock(&mut tx, &name, PATIENCE), async {
        harness.waiting(1).await;
        holder.release().await;
    });
    locked.unwrap();
    tx.execute("SET lock_timeout = '9s'").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(setting(&mut session, "lock_timeout").await, "9s");
}

#[tokio::test]
async fn a_savepoint_of_the_same_name_stays_the_users() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let _holder = harness.hold(&name).await;
    let mut tx = harness.begin().await;
    tx.execute("CREATE TEMP TABLE seen (what text)")
        .await
        .unwrap();
    tx.execute("INSERT INTO seen VALUES ('before')")
        .await
        .unwrap();
    tx.execute("SAVEPOINT distributed_lock").await.unwrap();
    tx.execute("INSERT INTO seen VALUES ('after')")
        .await
        .unwrap();
    assert!(
        harness
            .lock(&mut tx, &name, SHORT)
            .await
            .unwrap_err()
            .is_contended()
    );
    let rows = "SELECT count(*) FROM seen";
    let count = tx.fetch_one(rows).await.unwrap().get::<i64, _>(0);
    assert_eq!(count, 2);
    tx.execute("ROLLBACK TO distributed_lock").await.unwrap();
    let count = tx.fetch_one(rows).await.unwrap().get::<i64, _>(0);
    assert_eq!(count, 1);
}
