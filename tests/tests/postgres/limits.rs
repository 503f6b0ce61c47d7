//! The lock table of the server, which is everybody's.

use lock_core::postgres::PostgresBackend;
use lock_core::{LockGuard, LockName, LockProvider};
use lock_tests::servers::PostgresServer;
use sqlx::{Connection, Executor, PgConnection};

use crate::support::{Bed, ZERO};

fn number(number: usize) -> LockName {
    LockName::new("order", "process", number).unwrap()
}

/// Takes locks until one is refused; what was taken, and the refusal.
async fn fill(locks: &LockProvider) -> (Vec<LockGuard>, lock_core::LockError) {
    let mut guards = Vec::new();
    loop {
        let lock = locks.lock(number(guards.len())).unwrap();
        match lock.acquire(ZERO).await {
            Ok(guard) => guards.push(guard),
            Err(error) => return (guards, error),
        }
        assert!(guards.len() < 100_000, "there is no limit");
    }
}

#[tokio::test]
async fn a_process_holds_a_quarter_of_the_lock_table_and_others_can_still_connect() {
    let settings = [
        ("max_locks_per_transaction", "10"),
        ("max_connections", "20"),
    ];
    let server = PostgresServer::with(&settings).await;
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    let locks = LockProvider::new(backend);
    let (mut guards, error) = fill(&locks).await;
    assert_eq!(guards.len(), 10 * 20 / 4);
    assert!(error.is_unavailable(), "{error}");
    assert!(
        error.to_string().contains("max_locks_per_transaction"),
        "{error}"
    );
    PgConnection::connect(&server.url()).await.unwrap();
    assert!(guards.iter().all(LockGuard::is_valid));
    // A claim is no way around it; a place that is given back is one.
    let names = (0..100).map(|id| LockName::new("order", "pack", id).unwrap());
    let error = locks.claim(names.clone(), 100).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    for guard in guards.split_off(45) {
        guard.release().await.unwrap();
    }
    assert_eq!(locks.claim(names, 100).await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_full_lock_table_is_told_and_costs_nothing_that_was_held() {
    let settings = [
        ("max_locks_per_transaction", "10"),
        ("max_connections", "10"),
    ];
    let bed = Bed::with(&settings).await;
    let builder = PostgresBackend::builder(bed.server.url()).max_held(1_000_000);
    let locks = LockProvider::new(builder.connect().await.unwrap());
    let (guards, error) = fill(&locks).await;
    assert!(error.is_unavailable(), "{error}");
    assert!(
        error
            .to_string()
            .contains("max_locks_per_transaction (now 10)"),
        "{error}"
    );
    assert!(guards.iter().all(LockGuard::is_valid));
    let held = guards.len();
    for guard in guards {
        guard.release().await.unwrap();
    }
    // Nothing is left of the one that failed, nor of a claim that fails half-way.
    let names = (0..held + 500).map(number);
    let error = locks.claim(names, held + 500).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    let left = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
         WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'";
    let row = bed.pool.fetch_one(left).await.unwrap();
    assert_eq!(sqlx::Row::get::<i64, _>(&row, 0), 0);
    let (guards, _) = fill(&locks).await;
    assert!(guards.len() > held / 2, "{} of {held}", guards.len());
}

#[tokio::test]
async fn the_limit_is_the_callers_to_choose() {
    let server = PostgresServer::start().await;
    let builder = PostgresBackend::builder(server.url()).max_held(3);
    let locks = LockProvider::new(builder.connect().await.unwrap());
    assert_eq!(fill(&locks).await.0.len(), 3);
}
