//! The keys of locks, as others on the server see them.

use lock_core::LockProvider;
use lock_tests::servers::PostgresServer;
use lock_tests::{OneBackend, PostgresStore, Store};
use sqlx::{Connection, PgConnection};

use super::support::{builder, client, is_held, name, take};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_the_key_has_the_lock() {
    const TRY: &str = "SELECT pg_try_advisory_lock($1)";
    let store = PostgresStore::open().await;
    let client = store.client().await;
    let mut session = PgConnection::connect(&store.server.url()).await.unwrap();
    let key = PostgresStore::key_of(&name());
    let tried = sqlx::query_scalar::<_, bool>(TRY).bind(key);
    assert!(tried.fetch_one(&mut session).await.unwrap());
    assert!(is_held(&client, name()).await);
    let unlock = sqlx::query("SELECT pg_advisory_unlock($1)").bind(key);
    unlock.execute(&mut session).await.unwrap();
    let guard = take(&client, name()).await;
    let tried = sqlx::query_scalar::<_, bool>(TRY).bind(key);
    assert!(!tried.fetch_one(&mut session).await.unwrap());
    guard.release().await.unwrap();
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
    let guard = take(&one, name()).await;
    assert!(is_held(&other, name()).await);
    assert!(other.claim([name()], 1).await.unwrap().is_empty());
    guard.release().await.unwrap();
    take(&other, name()).await.release().await.unwrap();
    assert_eq!(store.advisory_locks().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_keep_locks_apart() {
    let server = PostgresServer::start().await;
    let plain = client(&server.url()).await;
    let shop = || async {
        let connected = builder(&server).namespace("shop").connect().await;
        LockProvider::new(connected.unwrap())
    };
    let (one, other) = (shop().await, shop().await);
    let _plain = take(&plain, name()).await;
    let guard = take(&one, name()).await;
    assert!(is_held(&other, name()).await);
    guard.release().await.unwrap();
    drop(take(&other, name()).await);
    assert!(is_held(&plain, name()).await);
}
