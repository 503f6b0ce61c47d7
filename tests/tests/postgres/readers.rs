//! Readers: one lock of the server's for all of a session, and a key that keeps new ones out while a writer waits.

use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_core::{LocalLock, LockError, LockGuard, LockMode, LockProvider};
use lock_tests::servers::{PostgresServer, Server};
use lock_tests::{PostgresStore, Store, eventually, is_held};
use sqlx::postgres::PgListener;
use sqlx::{Executor, PgPool, Row};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::{
    Harness, PATIENCE, SHORT, ZERO, acquire, child, client, key, numbered, order, session_of, take,
};

async fn read(client: &LockProvider) -> LockGuard {
    let lock = client.lock(order()).unwrap().shared();
    lock.acquire(ZERO).await.unwrap()
}

async fn is_readable(client: &LockProvider) -> bool {
    let lock = client.lock(order()).unwrap().shared();
    lock.try_acquire(ZERO).await.unwrap().is_some()
}

fn spawn_reader(client: &LockProvider) -> JoinHandle<Result<LockGuard, LockError>> {
    let lock = client.lock(order()).unwrap().shared();
    tokio::spawn(lock.acquire_owned(PATIENCE))
}

fn spawn_writer(client: &LockProvider) -> JoinHandle<Result<LockGuard, LockError>> {
    tokio::spawn(client.lock(order()).unwrap().acquire_owned(PATIENCE))
}

/// The processes on the server whose sessions hold the lock as readers.
async fn reading(pool: &PgPool) -> Vec<i32> {
    let sessions = sqlx::query_scalar(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted \
         AND objsubid = 1 AND ((classid::int8 << 32) | objid::int8) = $1",
    );
    let sessions = sessions.bind(key("", &order())).fetch_all(pool);
    sessions.await.unwrap()
}

/// How many keys keep readers out. Their lower half is the word that the documentation has.
async fn wanted(pool: &PgPool) -> i64 {
    let wanted = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' \
                  AND objsubid = 1 AND objid = '1463897684'::oid";
    pool.fetch_one(wanted).await.unwrap().get(0)
}

async fn wanted_is(pool: &PgPool, count: i64) {
    eventually(&format!("{count} keys keep readers out"), || async {
        wanted(pool).await == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_readers_of_a_session_are_one_lock_of_the_server_until_the_last_releases() {
    let store = PostgresStore::open().await;
    let (here, other) = (store.client().await, store.client().await);
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(read(&here).await);
    }
    // It, and the markers of two sessions.
    assert_eq!(store.advisory_locks().await, 3);
    while let Some(guard) = readers.pop() {
        assert_eq!(reading(&store.pool).await.len(), 1);
        assert!(is_held(&other, &order()).await);
        guard.release().await.unwrap();
    }
    assert!(reading(&store.pool).await.is_empty());
    drop(take(&other, order()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_session_loses_all_its_readers_and_none_of_another() {
    let store = PostgresStore::open().await;
    let (here, there) = (store.client().await, store.client().await);
    let lost = [read(&here).await, read(&here).await, read(&here).await];
    let [session] = reading(&store.pool).await[..] else {
        panic!("one session reads");
    };
    let beside = read(&there).await;
    let writer = spawn_writer(&there);
    wanted_is(&store.pool, 1).await;
    let end = sqlx::query("SELECT pg_terminate_backend($1)").bind(session);
    end.execute(&store.pool).await.unwrap();
    for guard in lost {
        guard.lost().await;
        assert!(!guard.is_valid());
        assert!(guard.release().await.unwrap_err().is_lost());
    }
    assert!(beside.is_valid() && !writer.is_finished());
    beside.release().await.unwrap();
    drop(writer.await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_are_kept_out_by_a_key_only_while_a_writer_waits_for_readers() {
    let store = PostgresStore::open().await;
    let (here, there) = (store.client().await, store.client().await);
    // A writer that waits for a writer has none.
    let first = take(&here, order()).await;
    let waits = spawn_writer(&there);
    eventually("it waits", || async { store.advisory_locks().await == 4 }).await;
    assert_eq!(wanted(&store.pool).await, 0);
    first.release().await.unwrap();
    let writer = waits.await.unwrap().unwrap();
    writer.release().await.unwrap();

    // Granted: the key goes while the lock is held.
    let first = read(&here).await;
    let waits = spawn_writer(&there);
    wanted_is(&store.pool, 1).await;
    first.release().await.unwrap();
    let writer = waits.await.unwrap().unwrap();
    wanted_is(&store.pool, 0).await;
    assert!(writer.is_valid());
    writer.release().await.unwrap();

    // Given up.
    let first = read(&here).await;
    let waits = spawn_writer(&there);
    wanted_is(&store.pool, 1).await;
    waits.abort();
    wanted_is(&store.pool, 0).await;
    assert!(first.is_valid() && is_readable(&there).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_go_on_when_a_waiting_writer_of_another_process_is_killed() {
    let store = PostgresStore::open().await;
    let (here, there, mut writer) = (
        store.client().await,
        store.client().await,
        child(&store).await,
    );
    let first = read(&here).await;
    writer.tell(&format!("acquire {} 60000", order())).await;
    wanted_is(&store.pool, 1).await;
    // Neither a session that reads nor one that does not lets another reader in.
    assert!(!is_readable(&here).await && !is_readable(&there).await);
    let behind = [spawn_reader(&here), spawn_reader(&there)];
    writer.kill().await;
    for reader in behind {
        assert!(reader.await.unwrap().unwrap().is_valid());
    }
    assert!(first.is_valid());
    assert_eq!(wanted(&store.pool).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_writer_is_notified_by_the_last_reader_and_by_no_other() {
    let store = PostgresStore::open().await;
    let (here, there) = (store.client().await, store.client().await);
    let mut listener = PgListener::connect_with(&store.pool).await.unwrap();
    let channels = ["distributed_lock", "markers"];
    listener.listen_all(channels).await.unwrap();
    let readers = [read(&here).await, read(&here).await, read(&here).await];
    let writer = spawn_writer(&there);
    wanted_is(&store.pool, 1).await;
    for (number, guard) in readers.into_iter().enumerate() {
        // Notifications come in the order of commits.
        let marker = format!("NOTIFY markers, 'marker {number}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(marker))
            .execute(&store.pool)
            .await
            .unwrap();
        let told = timeout(PATIENCE, listener.recv()).await.unwrap().unwrap();
        assert_eq!(told.payload(), format!("marker {number}"));
        guard.release().await.unwrap();
    }
    let told = timeout(PATIENCE, listener.recv()).await.unwrap().unwrap();
    assert_eq!(told.payload(), format!("{:x}", key("", &order())));
    drop(writer.await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_costs_all_readers_and_they_read_again() {
    let server = PostgresServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let lost = [
        read(&here).await,
        read(&here).await,
        read(&there).await,
        read(&there).await,
    ];
    server.kill().await;
    for guard in &lost {
        guard.lost().await;
    }
    let waits = [spawn_reader(&here), spawn_reader(&there)];
    server.restart().await;
    let mut readers = Vec::new();
    for reader in waits {
        readers.push(reader.await.unwrap().unwrap());
    }
    // What was lost ends nothing of the new ones.
    drop(lost);
    let pool = server.pool().await;
    assert_eq!(reading(&pool).await.len(), 2);
    assert!(readers.iter().all(LockGuard::is_valid));
    for guard in readers {
        guard.release().await.unwrap();
    }
    drop(acquire(&here, order(), PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_never_reads_what_it_writes_nor_writes_what_it_reads() {
    let store = PostgresStore::open().await;
    let here = store.client().await;
    let reader = read(&here).await;
    assert!(is_held(&here, &order()).await);
    let claimed = here.claim([order(), numbered(1)], 2).await.unwrap();
    let claimed: Vec<_> = claimed.iter().map(|guard| guard.name().clone()).collect();
    assert_eq!(claimed, [numbered(1)]);
    reader.release().await.unwrap();
    let writer = take(&here, order()).await;
    assert!(!is_readable(&here).await);
    session_of(&store.pool, &order()).await;
    assert!(reading(&store.pool).await.is_empty());
    writer.release().await.unwrap();
    assert!(is_readable(&here).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_and_readers_exclude_each_other() {
    let harness = Harness::new().await;
    let client = LockProvider::new(harness.backend.clone());
    let reader = read(&client).await;
    let mut tx = harness.begin().await;
    let error = harness.lock(&mut tx, &order(), SHORT).await.unwrap_err();
    assert!(error.is_contended(), "{error}");
    tx.rollback().await.unwrap();
    assert!(reader.is_valid());
    let holder = client.holder(&order()).await.unwrap().unwrap();
    assert_eq!(holder.mode(), LockMode::Shared);
    reader.release().await.unwrap();

    let mut tx = harness.begin().await;
    harness.lock(&mut tx, &order(), ZERO).await.unwrap();
    assert!(!is_readable(&client).await);
    let behind = spawn_reader(&client);
    tx.commit().await.unwrap();
    behind.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_is_not_starved_by_readers_of_two_sessions_that_overlap() {
    let store = PostgresStore::open().await;
    let clients = [store.client().await, store.client().await];
    let writers = store.client().await;
    let readers: Vec<_> = (0..8)
        .map(|number| {
            let client = clients[number % 2].clone();
            tokio::spawn(async move {
                loop {
                    let lock = client.lock(order()).unwrap().shared();
                    let guard = lock.acquire(PATIENCE).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    guard.release().await.unwrap();
                }
            })
        })
        .collect();
    eventually("they read", || async {
        reading(&store.pool).await.len() == 2
    })
    .await;
    for _ in 0..5 {
        let guard = acquire(&writers, order(), PATIENCE).await;
        assert!(reading(&store.pool).await.is_empty());
        guard.release().await.unwrap();
    }
    for reader in readers {
        assert!(!reader.is_finished(), "no reader failed");
        reader.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_reader_joins_others_also_where_the_limit_of_locks_is_reached() {
    let server = PostgresServer::start().await;
    let builder = PostgresBackend::builder(server.url()).max_held(1);
    let backend = builder.connect().await.unwrap();
    let [one, other, writing] = [(); 3].map(|()| LockProvider::new(backend.clone()));
    let first = read(&one).await;
    let writer = spawn_writer(&writing);
    eventually("the writer waits", || async { !is_readable(&other).await }).await;
    let waiting = spawn_reader(&other);
    eventually("the reader waits", || async {
        other
            .activity()
            .locks()
            .iter()
            .map(LocalLock::waiting)
            .sum::<usize>()
            == 1
    })
    .await;
    writer.abort();
    let second = timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert!(first.is_valid() && second.is_valid());
}
