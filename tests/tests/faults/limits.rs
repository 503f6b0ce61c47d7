//! What it costs the server: connections, statements, places in the lock table.

use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_core::{LockName, LockProvider};
use lock_tests::servers::{PostgresServer, Server};
use lock_tests::{PostgresStore, Store, eventually};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use super::support::{LEASE, PATIENCE, acquire, builder, is_held, name, numbered, take};

/// Room for 25 locks in a quarter of it.
const SMALL: [(&str, &str); 3] = [
    ("max_locks_per_transaction", "10"),
    ("max_connections", "10"),
    ("max_wal_senders", "0"),
];

async fn provider(builder: lock_core::postgres::PostgresBuilder) -> LockProvider {
    LockProvider::new(builder.connect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarter_of_the_lock_table_is_all_that_is_taken() {
    let server = PostgresServer::with(&SMALL).await;
    let client = provider(builder(&server)).await;
    let mut guards = Vec::new();
    for number in 0..25 {
        guards.push(take(&client, numbered(number)).await);
    }
    let one_more = client.lock(numbered(25)).unwrap();
    for wait in [Duration::ZERO, Duration::from_millis(50)] {
        let error = one_more.acquire(wait).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        assert!(
            error.to_string().contains("max_locks_per_transaction"),
            "{error}"
        );
    }
    let claimed = client.claim([numbered(26)], 1).await.unwrap_err();
    assert!(claimed.is_unavailable(), "{claimed:?}");
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(PgConnection::connect(&server.url()).await.unwrap());
    }
    assert!(guards.iter().all(lock_core::LockGuard::is_valid));
    guards.pop().unwrap().release().await.unwrap();
    guards.push(take(&client, numbered(25)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_ones_own_is_kept() {
    let server = PostgresServer::start().await;
    let client = provider(builder(&server).max_held(3)).await;
    let claimed = client.claim((0..10).map(numbered), 10).await.unwrap();
    assert_eq!(claimed.len(), 3);
    let error = client.lock(name()).unwrap().acquire(Duration::ZERO).await;
    let error = error.unwrap_err();
    assert!(
        error.is_unavailable() && error.to_string().contains("limit is 3"),
        "{error}"
    );
    drop(claimed);
    drop(acquire(&client, name(), PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_lock_table_is_named_and_costs_no_guard() {
    let server = PostgresServer::with(&SMALL).await;
    let client = provider(builder(&server).max_held(1_000_000)).await;
    let mut guards = vec![take(&client, name()).await];
    let error = loop {
        let number = 1_000 + guards.len();
        match client
            .lock(numbered(number))
            .unwrap()
            .acquire(Duration::ZERO)
            .await
        {
            Ok(guard) => guards.push(guard),
            Err(error) => break error,
        }
        assert!(guards.len() < 100_000, "the table is never full");
    };
    assert!(error.is_unavailable(), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("max_locks_per_transaction (now 10)"),
        "{error}"
    );
    // A statement that takes several and fails with the first that has no room keeps none.
    let many = client.claim((0..500).map(numbered), 500).await;
    if let Err(error) = many {
        assert!(error.is_unavailable(), "{error:?}");
    }
    assert!(guards.iter().all(lock_core::LockGuard::is_valid));
    let kept = guards.split_off(1);
    drop(kept);
    eventually("all but one are released", || async {
        let claimed = client.claim((0..20).map(numbered), 20).await;
        claimed.is_ok_and(|claimed| claimed.len() == 20)
    })
    .await;
    let pool = server.pool().await;
    eventually("the guard and the marker are left", || async {
        let locks = sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
        );
        locks.fetch_one(&pool).await.unwrap() == 2
    })
    .await;
    guards.pop().unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_waiters_cost_one_connection_and_few_registrations() {
    const NAMES: usize = 10_000;
    let store = PostgresStore::open().await;
    let (holder, waiter) = (store.client().await, store.client().await);
    let names: Vec<LockName> = (0..NAMES).map(numbered).collect();
    let guards = holder.claim(names.clone(), NAMES).await.unwrap();
    assert_eq!(guards.len(), NAMES);
    let mut waits = JoinSet::new();
    for name in names {
        let lock = waiter.lock(name).unwrap();
        waits.spawn(async move { lock.acquire(Duration::from_secs(60)).await.map(drop) });
    }
    let held = i64::try_from(NAMES).unwrap();
    // 512 names, everything, and two markers.
    let most = held + 512 + 1 + 2;
    eventually("they wait", || async {
        store.advisory_locks().await == most
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.advisory_locks().await, most);
    assert_eq!(store.sessions().await, 2);
    drop(guards);
    while let Some(granted) = waits.join_next().await {
        granted.unwrap().unwrap();
    }
    assert_eq!(store.sessions().await, 2);
    eventually("nothing is left", || async {
        store.advisory_locks().await == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_waiters_send_six_statements_a_second_at_most() {
    const SECONDS: usize = 5;
    let server =
        PostgresServer::with(&[("log_statement", "all"), ("log_parameter_max_length", "0")]).await;
    let holder = provider(builder(&server)).await;
    let waiter = provider(builder(&server).application_name("waiting")).await;
    let names: Vec<LockName> = (0..1_000).map(numbered).collect();
    let guards = holder.claim(names.clone(), 1_000).await.unwrap();
    assert_eq!(guards.len(), 1_000);
    let mut waits = JoinSet::new();
    for name in names {
        let lock = waiter.lock(name).unwrap();
        waits.spawn(async move { lock.acquire(Duration::from_secs(60)).await.map(drop) });
    }
    let statements = || {
        let log = server.log();
        let sent = log
            .lines()
            .filter(|line| line.contains(" waiting LOG:  execute"));
        sent.count()
    };
    // All are registered, and the fallback has come to its pace.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = statements();
    assert!(before > 0, "statements are logged");
    tokio::time::sleep(Duration::from_secs(SECONDS as u64)).await;
    let sent = statements() - before;
    assert!(
        0 < sent && sent <= 6 * SECONDS,
        "{sent} in {SECONDS} seconds"
    );
    waits.abort_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_the_server_on_idle_sessions_costs_no_lock() {
    let server = PostgresServer::with(&[("idle_session_timeout", "1s")]).await;
    let long = PostgresBackend::builder(server.url()).lease(Duration::from_secs(12));
    let client = provider(long).await;
    let guard = take(&client, name()).await;
    let lost = tokio::time::timeout(Duration::from_millis(3_500), guard.lost()).await;
    assert!(lost.is_err(), "{lost:?}");
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_it_is_made_from_is_left_alone() {
    let store = PostgresStore::open().await;
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect(&store.server.url()).await.unwrap();
    // The one connection is in use all the time.
    let mut connection = pool.acquire().await.unwrap();
    let client = LockProvider::new(PostgresBackend::from_pool(&pool).await.unwrap());
    let guard = take(&client, name()).await;
    let other = store.client().await;
    assert!(is_held(&other, name()).await);
    let own = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    );
    assert_eq!(own.fetch_one(&mut *connection).await.unwrap(), 0);
    // That of a check at the start ends by itself.
    eventually("each has one session", || async {
        store.sessions().await == 2
    })
    .await;
    drop(connection);
    pool.close().await;
    tokio::time::sleep(LEASE).await;
    assert!(guard.is_valid(), "the end of the pool is nothing to it");
    guard.release().await.unwrap();
}
