//! The keys of locks, as others on the server see them.

use lock_core::postgres::{AdvisoryKey, PostgresBackend, UNLOCK_AND_NOTIFY, advisory_key};
use lock_core::{LockGuard, LockProvider};
use lock_tests::{OneBackend, PostgresStore, Store, eventually, is_held};
use sqlx::postgres::PgListener;
use sqlx::{Connection, Executor, PgConnection, Row};

use crate::support::{PATIENCE, key, order, take};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_the_key_has_the_lock() {
    const TRY: &str = "SELECT pg_try_advisory_lock($1)";
    let store = PostgresStore::open().await;
    let client = store.client().await;
    let mut session = PgConnection::connect(&store.server.url()).await.unwrap();
    let key = key("", &order());
    let tried = sqlx::query_scalar::<_, bool>(TRY).bind(key);
    assert!(tried.fetch_one(&mut session).await.unwrap());
    assert!(is_held(&client, order()).await);
    let unlock = sqlx::query("SELECT pg_advisory_unlock($1)").bind(key);
    unlock.execute(&mut session).await.unwrap();
    let guard = take(&client, order()).await;
    let tried = sqlx::query_scalar::<_, bool>(TRY).bind(key);
    assert!(!tried.fetch_one(&mut session).await.unwrap());
    guard.release().await.unwrap();
}

/// As the documentation of the key has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_program_releases_the_lock_and_wakes_those_who_wait() {
    let store = PostgresStore::open().await;
    let backend = store.backend().await;
    let key = advisory_key(&order());
    assert_eq!(backend.advisory_key(&order()), AdvisoryKey::Bigint(key));
    let client = LockProvider::new(backend);
    let mut heard = PgListener::connect(&store.server.url()).await.unwrap();
    heard.listen("distributed_lock").await.unwrap();
    let mut session = PgConnection::connect(&store.server.url()).await.unwrap();
    let tried = sqlx::query_scalar::<_, bool>("SELECT pg_try_advisory_lock($1)").bind(key);
    assert!(tried.fetch_one(&mut session).await.unwrap());
    let lock = client.lock(order()).unwrap();
    let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    eventually("it waits", || async { store.advisory_locks().await == 2 }).await;
    for held in [true, false] {
        let released = sqlx::query_scalar::<_, bool>(UNLOCK_AND_NOTIFY).bind(key);
        assert_eq!(released.fetch_one(&mut session).await.unwrap(), held);
    }
    let told = loop {
        // The check of the backend when it connected, perhaps.
        let told = heard.recv().await.unwrap();
        if !told.payload().starts_with("check") {
            break told;
        }
    };
    assert_eq!(told.payload(), format!("{key:x}"));
    waiter.await.unwrap().unwrap().release().await.unwrap();
}

/// The server lets a session take a key again; two names with one key are as one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_session_has_is_not_taken_again() {
    let store = PostgresStore::open().await;
    let backend = OneBackend::new(store.backend().await);
    let (one, other) = (
        LockProvider::new(backend.clone()),
        LockProvider::new(backend),
    );
    let guard = take(&one, order()).await;
    assert!(is_held(&other, order()).await);
    assert!(other.claim([order()], 1).await.unwrap().is_empty());
    guard.release().await.unwrap();
    take(&other, order()).await.release().await.unwrap();
    assert_eq!(store.advisory_locks().await, 1);
}

#[tokio::test]
async fn namespaces_and_databases_are_apart() {
    let store = PostgresStore::open().await;
    store
        .pool
        .execute("CREATE DATABASE other TEMPLATE template0")
        .await
        .unwrap();
    let url = store.server.url();
    let other = store.server.url_for("postgres", "other");
    let shop = || PostgresBackend::builder(&url).namespace("shop");
    let mut guards = Vec::new();
    for builder in [
        shop(),
        PostgresBackend::builder(&url),
        PostgresBackend::builder(&url).namespace("Shop"),
        PostgresBackend::builder(&other),
    ] {
        let locks = LockProvider::new(builder.connect().await.unwrap());
        guards.push(take(&locks, order()).await);
    }
    // Within each of them there is one lock.
    let again = LockProvider::new(shop().connect().await.unwrap());
    assert!(is_held(&again, order()).await);
    guards.remove(0).release().await.unwrap();
    drop(take(&again, order()).await);
    assert!(is_held(&store.client().await, order()).await);
    assert!(guards.iter().all(LockGuard::is_valid));
}

#[tokio::test]
async fn operators_find_the_session_by_its_name_and_what_it_holds_by_its_key() {
    let store = PostgresStore::open().await;
    let builder = PostgresBackend::builder(store.server.url())
        .application_name("shop-locks")
        .instance("web-1");
    let locks = LockProvider::new(builder.connect().await.unwrap());
    let _guard = take(&locks, order()).await;
    let held = "SELECT a.state, current_database() FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) \
         WHERE locktype = 'advisory' AND objsubid = 1 AND application_name = 'shop-locks web-1' \
         AND ((classid::int8 << 32) | objid::int8) = $1 AND mode = 'ExclusiveLock'";
    // While no heartbeat is under way.
    eventually("it is found, and idle", async || {
        // As it is documented, for the empty namespace.
        let held = sqlx::query(held).bind(-4_392_062_105_972_231_254_i64);
        let row = held.fetch_one(&store.pool).await.unwrap();
        row.get::<String, _>(0) == "idle"
    })
    .await;
}
