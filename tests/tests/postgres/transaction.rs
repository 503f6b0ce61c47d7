//! A lock in a transaction: it is one with the locks of guards, and it ends with the transaction.

use std::time::{Duration, Instant};

use lock_core::LockProvider;
use lock_core::postgres::PostgresBackend;
use lock_tests::servers::PgBouncer;
use lock_tests::{Lateness, Log};
use sqlx::{Connection, Executor, PgConnection, Row};
use tracing::Level;

use crate::support::{Harness, PATIENCE, SHORT, ZERO, answers, key, name, setting, take};

#[tokio::test]
async fn commit_and_rollback_release_the_lock() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    for commit in [true, false] {
        for wait in [ZERO, PATIENCE] {
            let mut tx = harness.begin().await;
            harness.lock(&mut tx, &name, wait).await.unwrap();
            assert!(
                !harness.is_free(&name).await,
                "commit {commit}, wait {wait:?}"
            );
            if commit {
                tx.commit().await.unwrap();
            } else {
                tx.rollback().await.unwrap();
            }
            assert!(
                harness.is_free(&name).await,
                "commit {commit}, wait {wait:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_dropped_transaction_releases_the_lock() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let mut session = harness.session().await;
    let mut tx = session.begin().await.unwrap();
    harness.lock(&mut tx, &name, ZERO).await.unwrap();
    drop(tx);
    assert!(answers(&mut session).await);
    assert!(harness.is_free(&name).await);
}

#[tokio::test]
async fn the_namespace_is_part_of_the_key() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let mut tx = harness.begin().await;
    let shop = PostgresBackend::builder(harness.server.url()).namespace("shop");
    let shop = shop.connect().await.unwrap();
    shop.lock_in_transaction(&mut tx, &name, ZERO)
        .await
        .unwrap();
    assert!(harness.is_free(&name).await);
    assert!(!harness.is_key_free(key("shop", &name)).await);
}

#[tokio::test]
async fn a_held_lock_is_contended_and_the_transaction_lives_on() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let holder = harness.hold(&name).await;
    let mut tx = harness.begin().await;
    for wait in [
        ZERO,
        Duration::from_nanos(1),
        Duration::from_millis(1),
        SHORT,
    ] {
        let late = Lateness::of(wait);
        let error = harness.lock(&mut tx, &name, wait).await.unwrap_err();
        late.check(Duration::from_millis(100)).await;
        assert!(error.is_contended(), "{wait:?}: {error}");
        assert!(error.waited() >= Some(wait), "{wait:?}: {error}");
        assert_eq!(error.lock(), Some(&name));
        assert!(answers(&mut tx).await, "{wait:?}");
    }
    holder.release().await;
    harness.lock(&mut tx, &name, ZERO).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn two_transactions_exclude_each_other() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let (mut first, mut second) = (harness.begin().await, harness.begin().await);
    harness.lock(&mut first, &name, ZERO).await.unwrap();
    assert!(
        harness
            .lock(&mut second, &name, SHORT)
            .await
            .unwrap_err()
            .is_contended()
    );
    first.commit().await.unwrap();
    harness.lock(&mut second, &name, ZERO).await.unwrap();
}

#[tokio::test]
async fn a_wait_of_any_length_is_served_when_the_holder_leaves() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    for wait in [PATIENCE, Duration::MAX] {
        let holder = harness.hold(&name).await;
        let mut tx = harness.begin().await;
        let (locked, ()) = tokio::join!(harness.lock(&mut tx, &name, wait), async {
            harness.waiting(1).await;
            holder.release().await;
        });
        locked.unwrap();
        assert!(!harness.is_free(&name).await);
        tx.commit().await.unwrap();
        assert!(harness.is_free(&name).await);
    }
}

#[tokio::test]
async fn it_sees_what_the_holder_committed() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    harness
        .pool
        .execute("CREATE TABLE counter AS SELECT 0 AS value")
        .await
        .unwrap();
    let (mut first, mut second) = (harness.begin().await, harness.begin().await);
    harness.lock(&mut first, &name, ZERO).await.unwrap();
    // So that the second has been looking at the table since before the write.
    second.fetch_one("SELECT value FROM counter").await.unwrap();
    let (locked, ()) = tokio::join!(harness.lock(&mut second, &name, PATIENCE), async {
        harness.waiting(1).await;
        first.execute("UPDATE counter SET value = 1").await.unwrap();
        first.commit().await.unwrap();
    });
    locked.unwrap();
    let seen = second.fetch_one("SELECT value FROM counter").await.unwrap();
    assert_eq!(seen.get::<i32, _>(0), 1);
}

#[tokio::test]
async fn a_read_only_transaction_can_lock() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let holder = harness.hold(&name).await;
    let mut session = harness.session().await;
    let mut tx = session.begin_with("BEGIN READ ONLY").await.unwrap();
    let (locked, ()) = tokio::join!(harness.lock(&mut tx, &name, PATIENCE), async {
        harness.waiting(1).await;
        holder.release().await;
    });
    locked.unwrap();
    assert!(!harness.is_free(&name).await);
}

#[tokio::test]
async fn a_transaction_takes_several_locks_and_each_of_them_again() {
    let harness = Harness::new().await;
    let names = ["account:transfer:3", "account:transfer:7"].map(name);
    let mut tx = harness.begin().await;
    for wait in [ZERO, PATIENCE] {
        for name in &names {
            harness.lock(&mut tx, name, wait).await.unwrap();
        }
    }
    // A refusal does not give back what was locked before.
    let third = name("account:transfer:9");
    let _holder = harness.hold(&third).await;
    assert!(
        harness
            .lock(&mut tx, &third, SHORT)
            .await
            .unwrap_err()
            .is_contended()
    );
    for name in &names {
        assert!(!harness.is_free(name).await);
    }
    tx.commit().await.unwrap();
    for name in &names {
        assert!(harness.is_free(name).await);
    }
}

#[tokio::test]
async fn going_back_to_a_savepoint_gives_back_what_was_locked_since() {
    let harness = Harness::new().await;
    let (early, late) = (name("order:process:1"), name("order:process:2"));
    let mut tx = harness.begin().await;
    harness.lock(&mut tx, &early, ZERO).await.unwrap();
    let mut nested = tx.begin().await.unwrap();
    harness.lock(&mut nested, &late, ZERO).await.unwrap();
    harness.lock(&mut nested, &early, ZERO).await.unwrap();
    nested.rollback().await.unwrap();
    assert!(!harness.is_free(&early).await);
    assert!(harness.is_free(&late).await);

    let mut nested = tx.begin().await.unwrap();
    harness.lock(&mut nested, &late, ZERO).await.unwrap();
    nested.commit().await.unwrap();
    assert!(!harness.is_free(&late).await);
}

#[tokio::test]
async fn a_transaction_through_a_pooler_of_transactions_can_lock() {
    let harness = Harness::new().await;
    let bouncer = PgBouncer::transaction(&harness.server).await;
    let name = name("order:process:42");
    let holder = harness.hold(&name).await;
    let mut session = PgConnection::connect(&bouncer.url()).await.unwrap();
    let mut tx = session.begin().await.unwrap();
    let (locked, ()) = tokio::join!(harness.lock(&mut tx, &name, PATIENCE), async {
        harness.waiting(1).await;
        holder.release().await;
    });
    locked.unwrap();
    assert!(!harness.is_free(&name).await);
    tx.commit().await.unwrap();
    assert!(harness.is_free(&name).await);
}

#[tokio::test]
async fn a_role_without_rights_can_lock_and_be_told_where_it_is() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let holder = harness.hold(&name).await;
    let mut session = harness.session().await;
    session.execute("SET ROLE app").await.unwrap();
    let mut tx = session.begin().await.unwrap();
    let url = harness.server.url_for("app", "postgres");
    let backend = PostgresBackend::connect(&url).await.unwrap();
    let wait = backend.lock_in_transaction(&mut tx, &name, PATIENCE);
    let (locked, ()) = tokio::join!(wait, async {
        harness.waiting(1).await;
        holder.release().await;
    });
    locked.unwrap();
    assert!(!harness.is_free(&name).await);
}

#[tokio::test]
async fn whether_it_was_had_is_never_wrong_when_a_release_meets_the_end_of_the_wait() {
    let harness = Harness::new().await;
    let name = name("order:process:42");
    let (mut had, mut refused) = (0, 0);
    let mut session = harness.session().await;
    let until = Instant::now() + Duration::from_secs(3);
    // Both outcomes must occur; how the machine's timing falls decides how often.
    while Instant::now() < until || (had == 0 || refused == 0) {
        let holder = harness.hold(&name).await;
        let mut tx = session.begin().await.unwrap();
        let wait = Duration::from_millis(2);
        let leave = Duration::from_micros(fastrand::u64(..4_500));
        let (locked, ()) = tokio::join!(harness.lock(&mut tx, &name, wait), async {
            tokio::time::sleep(leave).await;
            holder.release().await;
        });
        let locked = match locked {
            Ok(()) => true,
            Err(error) => {
                assert!(error.is_contended(), "{error}");
                false
            }
        };
        assert_eq!(harness.is_free(&name).await, !locked);
        *(if locked { &mut had } else { &mut refused }) += 1;
        assert_eq!(setting(&mut tx, "lock_timeout").await, "0");
        tx.commit().await.unwrap();
        assert!(harness.is_free(&name).await);
    }
}

#[tokio::test]
async fn a_transaction_that_waits_for_a_lock_of_which_its_task_has_a_guard_is_reported() {
    const ITSELF: &str = "of which its task has a guard";
    let (log, _listening) = Log::of_thread(Level::WARN);
    let harness = Harness::new().await;
    let locks = LockProvider::builder(harness.backend.clone())
        .lock_order_watch(true)
        .build();
    // Of one kind only one is reported.
    let [mine, protected, theirs] = ["order:pay:1", "order:ship:1", "order:pack:1"].map(name);
    let mut tx = harness.begin().await;
    // Another task's: it may release it meanwhile.
    let other = tokio::spawn({
        let (locks, theirs) = (locks.clone(), theirs.clone());
        async move { take(&locks, theirs).await }
    });
    let other = other.await.unwrap();
    assert!(harness.lock(&mut tx, &theirs, SHORT).await.is_err());
    let guard = take(&locks, mine.clone()).await;
    // A try waits for nothing.
    assert!(harness.lock(&mut tx, &mine, ZERO).await.is_err());
    assert_eq!(log.text(), "");
    for _ in 0..2 {
        assert!(harness.lock(&mut tx, &mine, SHORT).await.is_err());
        assert_eq!(log.count(ITSELF), 1, "{}", log.text());
    }
    let outer = take(&locks, protected.clone()).await;
    let inside = outer
        .protect(harness.lock(&mut tx, &protected, SHORT))
        .await;
    assert!(inside.unwrap().is_err());
    // What was released is free.
    guard.release().await.unwrap();
    harness.lock(&mut tx, &mine, SHORT).await.unwrap();
    assert_eq!(log.count(ITSELF), 2, "{}", log.text());
    drop((other, outer));
}
