//! The fence: a transaction of a holder that was overtaken is refused, and nothing else is.

use std::time::Duration;

use lock_core::memory::MemoryBackend;
use lock_core::postgres::{Fence, PostgresBackend};
use lock_core::{FencingToken, LockError, LockName, LockProvider};
use sqlx::{AssertSqlSafe, Connection, Executor, Postgres, Row, Transaction};

use crate::support::{Harness, PATIENCE, name};

const FENCE: Fence = Fence::new();

pub(super) async fn migrated() -> Harness {
    let harness = Harness::new().await;
    Fence::migrate(&harness.pool).await.unwrap();
    harness
}

pub(super) async fn check(
    tx: &mut Transaction<'_, Postgres>,
    name: &LockName,
    token: u64,
) -> Result<(), LockError> {
    FENCE.check(tx, name, FencingToken::new(token)).await
}

/// Checks in a transaction of its own, and commits it.
pub(super) async fn committed(
    harness: &Harness,
    name: &LockName,
    token: u64,
) -> Result<(), LockError> {
    let mut tx = harness.begin().await;
    check(&mut tx, name, token).await?;
    tx.commit().await.unwrap();
    Ok(())
}

/// As with a dump of a server that was promoted often.
#[tokio::test]
async fn a_table_that_came_from_another_server_is_told_with_what_overcomes_it() {
    let harness = migrated().await;
    let name = name("order:process:42");
    committed(&harness, &name, 9 << 48).await.unwrap();
    for epoch in [0, 1] {
        let backend = PostgresBackend::builder(harness.server.url()).token_epoch(epoch);
        let locks = LockProvider::new(backend.connect().await.unwrap());
        let guard = locks.lock(&name).unwrap().acquire(PATIENCE).await.unwrap();
        let token = guard.fencing_token().await.unwrap();
        let checked = committed(&harness, &name, token.get()).await;
        match checked {
            Ok(()) => assert_eq!(epoch, 1),
            Err(error) => {
                assert!(epoch == 0 && error.is_lost(), "{error}");
                assert!(error.to_string().contains("raise `token_epoch`"), "{error}");
            }
        }
        guard.release().await.unwrap();
    }
}

#[tokio::test]
async fn an_older_token_is_refused_and_an_equal_or_newer_one_passes() {
    let harness = migrated().await;
    let name = name("order:process:42");
    committed(&harness, &name, 7).await.unwrap();
    committed(&harness, &name, 7).await.unwrap();
    committed(&harness, &name, 9).await.unwrap();
    for older in [0, 7, 8] {
        let error = committed(&harness, &name, older).await.unwrap_err();
        assert!(error.is_lost(), "{error}");
        assert!(error.to_string().contains("newer holder"), "{error}");
        assert_eq!(error.lock(), Some(&name));
    }
    committed(&harness, &name, 9).await.unwrap();
    committed(&harness, &name, 10).await.unwrap();
}

#[tokio::test]
async fn locks_and_namespaces_have_fences_of_their_own() {
    let harness = migrated().await;
    let (one, other) = (name("order:process:42"), name("order:process:43"));
    committed(&harness, &one, 9).await.unwrap();
    committed(&harness, &other, 1).await.unwrap();

    let shop = Fence::new().namespace("shop");
    let mut tx = harness.begin().await;
    shop.check(&mut tx, &one, FencingToken::new(3))
        .await
        .unwrap();
    let error = shop.check(&mut tx, &one, FencingToken::new(2)).await;
    assert!(error.unwrap_err().is_lost());
    tx.commit().await.unwrap();
    assert!(committed(&harness, &one, 8).await.unwrap_err().is_lost());
}

#[tokio::test]
async fn a_rollback_forgets_the_token() {
    let harness = migrated().await;
    let name = name("order:process:42");
    committed(&harness, &name, 7).await.unwrap();
    let mut tx = harness.begin().await;
    check(&mut tx, &name, 9).await.unwrap();
    tx.rollback().await.unwrap();
    committed(&harness, &name, 8).await.unwrap();
}

#[tokio::test]
async fn a_refused_transaction_goes_on_if_it_wants_to() {
    let harness = migrated().await;
    let name = name("order:process:42");
    committed(&harness, &name, 7).await.unwrap();
    let mut tx = harness.begin().await;
    assert!(check(&mut tx, &name, 6).await.unwrap_err().is_lost());
    check(&mut tx, &name, 7).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn of_two_transactions_the_second_waits_and_the_older_loses() {
    let harness = migrated().await;
    let name = name("order:process:42");
    // With and without a row that is there before.
    for (newer, older) in [(8, 7), (18, 17)] {
        let mut first = harness.begin().await;
        check(&mut first, &name, newer).await.unwrap();
        let mut second = harness.begin().await;
        let (refused, ()) = tokio::join!(check(&mut second, &name, older), async {
            harness.waiting_for_transactions(1).await;
            first.commit().await.unwrap();
        });
        assert!(refused.unwrap_err().is_lost());
    }
}

#[tokio::test]
async fn a_newer_holder_waits_for_the_older_one_and_reads_what_it_wrote() {
    let harness = migrated().await;
    let name = name("order:process:42");
    harness
        .pool
        .execute("CREATE TABLE counter AS SELECT 0 AS value")
        .await
        .unwrap();
    let mut older = harness.begin().await;
    check(&mut older, &name, 7).await.unwrap();
    let mut newer = harness.begin().await;
    let (passed, ()) = tokio::join!(check(&mut newer, &name, 8), async {
        harness.waiting_for_transactions(1).await;
        older.execute("UPDATE counter SET value = 1").await.unwrap();
        older.commit().await.unwrap();
    });
    passed.unwrap();
    let seen = newer.fetch_one("SELECT value FROM counter").await.unwrap();
    assert_eq!(seen.get::<i32, _>(0), 1);
}

#[tokio::test]
async fn when_the_first_of_two_rolls_back_the_older_passes() {
    let harness = migrated().await;
    let name = name("order:process:42");
    let mut first = harness.begin().await;
    check(&mut first, &name, 8).await.unwrap();
    let mut second = harness.begin().await;
    let (passed, ()) = tokio::join!(check(&mut second, &name, 7), async {
        harness.waiting_for_transactions(1).await;
        first.rollback().await.unwrap();
    });
    passed.unwrap();
    second.commit().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_from_before_another_write_is_refused() {
    let harness = migrated().await;
    let name = name("order:process:42");
    // Without and with a row that the snapshot sees.
    for token in [10, 20] {
        let mut session = harness.session().await;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ";
        let mut tx = session.begin_with(begin).await.unwrap();
        tx.execute("SELECT count(*) FROM distributed_lock_fences")
            .await
            .unwrap();
        committed(&harness, &name, token).await.unwrap();
        let error = check(&mut tx, &name, token + 1).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        assert!(error.to_string().contains("roll it back"), "{error}");
    }
}

#[tokio::test]
async fn a_snapshot_from_before_the_wait_is_refused_and_not_passed() {
    let harness = migrated().await;
    let name = name("order:process:42");
    let mut session = harness.session().await;
    for (level, token) in [("REPEATABLE READ", 10), ("SERIALIZABLE", 20)] {
        let mut first = harness.begin().await;
        check(&mut first, &name, token).await.unwrap();
        let begin = AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {level}"));
        let mut second = session.begin_with(begin).await.unwrap();
        let (refused, ()) = tokio::join!(check(&mut second, &name, token + 1), async {
            harness.waiting_for_transactions(1).await;
            first.commit().await.unwrap();
        });
        let error = refused.unwrap_err();
        assert!(error.is_unavailable(), "{level}: {error}");
        second.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn writers_in_any_order_leave_the_newest_token_and_count() {
    let harness = migrated().await;
    let name = name("order:process:42");
    harness
        .pool
        .execute("CREATE TABLE log (id bigserial, token bigint)")
        .await
        .unwrap();
    let mut writers = tokio::task::JoinSet::new();
    let mut tokens: Vec<u64> = (1..=40).collect();
    fastrand::shuffle(&mut tokens);
    for token in tokens {
        let (pool, name) = (harness.pool.clone(), name.clone());
        writers.spawn(async move {
            let mut tx = pool.begin().await.unwrap();
            let token = FencingToken::new(token);
            if let Err(error) = FENCE.check(&mut tx, &name, token).await {
                assert!(error.is_lost(), "{error}");
                return;
            }
            sqlx::query("INSERT INTO log (token) VALUES ($1)")
                .bind(token)
                .execute(&mut *tx)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let log: Vec<FencingToken> = sqlx::query_scalar("SELECT token FROM log ORDER BY id")
        .fetch_all(&harness.pool)
        .await
        .unwrap();
    assert!(log.is_sorted(), "{log:?}");
    assert_eq!(log.last(), Some(&FencingToken::new(40)));
    assert!(committed(&harness, &name, 39).await.unwrap_err().is_lost());
}

#[tokio::test]
async fn a_guard_is_checked_by_its_own_token() {
    let harness = migrated().await;
    let locks = LockProvider::new(MemoryBackend::new());
    let first = locks.lock("order:process:42").unwrap();
    let first = first.acquire(Duration::ZERO).await.unwrap();
    let token = first.fencing_token().await.unwrap();
    let mut tx = harness.begin().await;
    FENCE.check_guard(&mut tx, &first).await.unwrap();
    tx.commit().await.unwrap();
    first.release().await.unwrap();

    let second = locks.lock("order:process:42").unwrap();
    let second = second.acquire(Duration::ZERO).await.unwrap();
    let mut tx = harness.begin().await;
    FENCE.check_guard(&mut tx, &second).await.unwrap();
    let error = FENCE
        .check(&mut tx, second.name(), token)
        .await
        .unwrap_err();
    assert!(error.is_lost(), "{error}");
}

#[tokio::test]
async fn a_column_of_the_row_refuses_as_the_documentation_says() {
    let harness = Harness::new().await;
    harness
        .pool
        .execute("CREATE TABLE orders (id bigint, state text, fence bigint NOT NULL DEFAULT 0)")
        .await
        .unwrap();
    harness
        .pool
        .execute("INSERT INTO orders VALUES (42, 'new')")
        .await
        .unwrap();
    for (token, written) in [(7, 1), (9, 1), (8, 0), (9, 1)] {
        let update = "UPDATE orders SET state = $1, fence = $2 WHERE id = $3 AND fence <= $2";
        let updated = sqlx::query(update)
            .bind("paid")
            .bind(FencingToken::new(token))
            .bind(42_i64)
            .execute(&harness.pool)
            .await
            .unwrap();
        assert_eq!(updated.rows_affected(), written, "{token}");
    }
    let too_big = sqlx::query("SELECT $1").bind(FencingToken::new(u64::MAX));
    too_big.execute(&harness.pool).await.unwrap_err();
    let negative = sqlx::query_scalar::<_, FencingToken>("SELECT -1::bigint");
    negative.fetch_one(&harness.pool).await.unwrap_err();
}
