//! Processes that begin alike are several holders.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::collections::BTreeSet;
use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_core::redis::RedisBackend;
use lock_core::{LockName, LockProvider};
use lock_tests::child::Child;
use lock_tests::servers::{PostgresServer, RedisServer};
use lock_tests::{FileStore, PostgresStore, RedisClusterStore, RedisStore, Store, redis_key};

const TWIN: &str = env!("CARGO_BIN_EXE_twin");

const NAME: &str = "job:nightly";

/// Two processes of one seed, each forked after a draw: four with the same generator.
async fn four_alike(address: &str, name: &str) -> (Vec<String>, [Child; 2]) {
    let start = async || Child::run(TWIN, &[address, name]).await;
    let (mut one, mut other) = tokio::join!(start(), start());
    let mut answers = Vec::new();
    for twin in [&mut one, &mut other] {
        answers.extend([twin.answer().await, twin.answer().await]);
    }
    (answers, [one, other])
}

async fn one_of_four_is_granted<S: Store>() {
    let store = S::open().await;
    let (mut answers, alive) = four_alike(&store.address().unwrap(), NAME).await;
    answers.sort();
    assert_eq!(answers, ["contended", "contended", "contended", "granted"]);
    drop(alive);
}

#[tokio::test]
async fn one_of_several_that_begin_alike_is_granted_a_lock_in_redis() {
    one_of_four_is_granted::<RedisStore>().await;
}

#[tokio::test]
async fn one_of_several_that_begin_alike_is_granted_a_lock_in_a_redis_cluster() {
    one_of_four_is_granted::<RedisClusterStore>().await;
}

#[tokio::test]
async fn one_of_several_that_begin_alike_is_granted_a_lock_in_postgres() {
    one_of_four_is_granted::<PostgresStore>().await;
}

#[tokio::test]
async fn one_of_several_that_begin_alike_is_granted_a_lock_in_files() {
    one_of_four_is_granted::<FileStore>().await;
}

/// A process that connects again ends the session that has its identity.
#[tokio::test]
async fn sessions_in_postgres_of_processes_that_begin_alike_have_identities_of_their_own() {
    let server = PostgresServer::start().await;
    let (_, alive) = four_alike(&format!("postgres:10000:{}", server.url()), NAME).await;
    let counted = sqlx::query_as::<_, (i64, i64)>(
        "SELECT count(*), count(DISTINCT (classid, objid)) FROM pg_locks \
         WHERE locktype = 'advisory' AND objsubid = 2 AND mode = 'ShareLock'",
    );
    let (sessions, identities) = counted.fetch_one(&server.pool().await).await.unwrap();
    assert_eq!((sessions, identities), (4, 4));
    drop(alive);
}

/// The part of an owner in the store that is of a connection.
async fn identity(server: &RedisServer, locks: &LockProvider, name: &str) -> String {
    let name: LockName = name.parse().unwrap();
    let lock = locks.lock(name.clone()).unwrap();
    let guard = lock.acquire(Duration::from_secs(30)).await.unwrap();
    let key = redis_key("", &name);
    let value: String = server.ask(&["GET", &key]).await.unwrap();
    guard.release().await.unwrap();
    value[..16].to_owned()
}

#[tokio::test]
async fn each_connection_to_redis_has_an_identity_of_its_own() {
    let store = RedisStore::open().await;
    let (server, locks) = (store.server(), store.client().await);
    let mut identities = BTreeSet::new();
    for _ in 0..20 {
        identities.insert(identity(server, &locks, NAME).await);
        assert_eq!(
            identity(server, &locks, NAME).await,
            *identities.last().unwrap()
        );
    }
    assert_eq!(identities.len(), 1);
    for _ in 0..20 {
        let killed = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
        let _: u32 = server.ask(&killed).await.unwrap();
        // The connection that was killed answers no more.
        identities.insert(identity(server, &locks, NAME).await);
    }
    assert_eq!(identities.len(), 21);
}

const FORKER: &str = env!("CARGO_BIN_EXE_forker");

/// A child that goes on without `exec` has copies of the sockets and of the guard.
async fn a_forked_child_frees_nothing_and_keeps_nothing(address: &str, locks: &LockProvider) {
    let mut process = Child::run(FORKER, &[address, NAME]).await;
    assert_eq!(process.answer().await, "unanswered");
    let lock = locks.lock(NAME).unwrap();
    assert!(lock.try_acquire(LEASE).await.unwrap().is_none(), "held on");
    process.kill().await;
    // The child lives, until its standard input ends.
    let free = lock.try_acquire(2 * LEASE).await.unwrap();
    assert!(free.is_some(), "it ends with the lease");
}

const LEASE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_forked_child_neither_frees_nor_keeps_a_lock_in_postgres() {
    let server = PostgresServer::start().await;
    let backend = PostgresBackend::builder(server.url()).lease(LEASE);
    let locks = LockProvider::new(backend.connect().await.unwrap());
    let address = format!("postgres:2000:{}", server.url());
    a_forked_child_frees_nothing_and_keeps_nothing(&address, &locks).await;
}

#[tokio::test]
async fn a_forked_child_neither_frees_nor_keeps_a_lock_in_redis() {
    let server = RedisServer::start().await;
    let backend = RedisBackend::builder(&server.url())
        .lease(LEASE)
        .quarantine(Duration::ZERO);
    let locks = LockProvider::new(backend.connect().await.unwrap());
    let address = format!("redis:2000:0:{}", server.url());
    a_forked_child_frees_nothing_and_keeps_nothing(&address, &locks).await;
}
