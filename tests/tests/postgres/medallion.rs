//! Locks that .NET services hold by DistributedLock.Postgres: they exclude guards, and guards exclude them.

use std::time::Duration;

use lock_core::postgres::{KeyScheme, PostgresBackend};
use lock_core::{LockName, LockProvider};
use lock_tests::{PostgresStore, Store, is_held};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio::time::{sleep, timeout};

use crate::support::{Harness, PATIENCE, SHORT, ZERO, builder, name, take};

/// The name of a lock here, that in the .NET service, and the arguments with which that calls PostgreSQL.
const LOCKS: [(&str, &str, &str); 4] = [
    (
        "order:process:42",
        "order:process:42",
        "-7201617905283468966",
    ),
    ("job:abc", "job:abc", "-708897876, 951173119"),
    ("user:login:7", "user:login:\u{e9}", "-3842291312407938174"),
    ("user:export:7", "a", "-1023410177, -1"),
];

fn text(name: &LockName) -> String {
    let named = LOCKS.iter().find(|(ours, ..)| *ours == name.as_str());
    named.map_or_else(|| name.to_string(), |(_, theirs, _)| (*theirs).to_owned())
}

async fn client(store: &PostgresStore) -> LockProvider {
    let builder = builder(&store.server)
        .keys(KeyScheme::Medallion)
        .key_text(text);
    LockProvider::new(builder.connect().await.unwrap())
}

/// A .NET service, which has a session for a lock.
struct Service(PgConnection);

impl Service {
    async fn of(store: &PostgresStore) -> Self {
        Self(PgConnection::connect(&store.server.url()).await.unwrap())
    }

    async fn call(&mut self, function: &str, key: &str) -> bool {
        let call = AssertSqlSafe(format!("SELECT pg_catalog.{function}({key})"));
        let row = self.0.fetch_one(call).await.unwrap();
        row.try_get(0).unwrap_or(true)
    }

    async fn tries(&mut self, key: &str) -> bool {
        self.call("pg_try_advisory_lock", key).await
    }

    async fn waits(mut self, key: &'static str) -> Self {
        self.0.execute("SET lock_timeout = '30s'").await.unwrap();
        self.call("pg_advisory_lock", key).await;
        self
    }

    async fn releases(&mut self, key: &str) {
        assert!(self.call("pg_advisory_unlock", key).await, "it was held");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guards_and_locks_of_a_dotnet_service_exclude_each_other() {
    let store = PostgresStore::open().await;
    let client = client(&store).await;
    let mut service = Service::of(&store).await;
    for (ours, _, key) in LOCKS {
        assert!(service.tries(key).await, "{ours}");
        assert!(is_held(&client, name(ours)).await, "{ours}");
        let claimed = client.claim([name(ours)], 1).await.unwrap();
        assert!(claimed.is_empty(), "{ours}");
        service.releases(key).await;
        let guard = take(&client, name(ours)).await;
        assert!(!service.tries(key).await, "{ours}");
        guard.release().await.unwrap();
        let claimed = client.claim([name(ours)], 1).await.unwrap();
        assert!(claimed.len() == 1 && !service.tries(key).await, "{ours}");
        drop(claimed);
    }
}

/// A release there notifies no process: the lock is found by polling. One here wakes the service, which
/// waits in the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_gets_the_lock_whichever_side_releases_it() {
    let store = PostgresStore::open().await;
    let client = client(&store).await;
    for (ours, _, key) in LOCKS {
        let mut service = Service::of(&store).await;
        assert!(service.tries(key).await, "{ours}");
        let lock = client.lock(name(ours)).unwrap();
        let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
        sleep(SHORT).await;
        service.releases(key).await;
        let guard = waiter.await.unwrap().unwrap();
        let waiting = tokio::spawn(service.waits(key));
        sleep(SHORT).await;
        assert!(!waiting.is_finished(), "{ours}");
        guard.release().await.unwrap();
        let mut service = timeout(PATIENCE, waiting).await.unwrap().unwrap();
        assert!(is_held(&client, name(ours)).await, "{ours}");
        service.releases(key).await;
    }
}

/// The pair of two halves and the bigint of the same bits are two locks for the server: one process can have one
/// of them at a time, and is never given the one for the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_is_not_granted_for_the_bigint_of_its_bits() {
    const PAIR: &str = "0, 1";
    const BIGINT: &str = "1";
    let store = PostgresStore::open().await;
    let of_others = |name: &LockName| match name.as_str() {
        "key:of:pair" => "00000000,00000001".to_owned(),
        _ => "0000000000000001".to_owned(),
    };
    let builder = builder(&store.server)
        .keys(KeyScheme::Medallion)
        .key_text(of_others);
    let client = LockProvider::new(builder.connect().await.unwrap());
    let mut service = Service::of(&store).await;
    assert!(service.tries(PAIR).await && service.tries(BIGINT).await);
    let wait = |text: &str| {
        let lock = client.lock(name(text)).unwrap();
        tokio::spawn(async move { lock.acquire(PATIENCE).await })
    };
    let pair = wait("key:of:pair");
    sleep(SHORT).await;
    let bigint = wait("key:of:bigint");
    sleep(SHORT).await;
    service.releases(PAIR).await;
    drop(pair.await.unwrap().unwrap());
    // What this process is granted for its waiters now is the pair again.
    sleep(Duration::from_secs(1)).await;
    assert!(!bigint.is_finished(), "the service holds it");
    bigint.abort();
}

#[tokio::test]
async fn a_lock_in_a_transaction_has_the_key_of_the_scheme() {
    let harness = Harness::new().await;
    let builder = PostgresBackend::builder(harness.server.url()).keys(KeyScheme::Medallion);
    let backend = builder.key_text(text).connect().await.unwrap();
    let mut session = harness.session().await;
    for (ours, _, key) in LOCKS {
        let mut tx = harness.begin().await;
        backend
            .lock_in_transaction(&mut tx, &name(ours), ZERO)
            .await
            .unwrap();
        let tried = AssertSqlSafe(format!("SELECT pg_try_advisory_lock({key})"));
        let row = session.fetch_one(tried).await.unwrap();
        assert!(!row.get::<bool, _>(0), "{ours}");
    }
}

#[tokio::test]
async fn keys_without_a_namespace_are_refused_one() {
    let refused = PostgresBackend::builder("postgres://127.0.0.1:1/none")
        .namespace("shop")
        .keys(KeyScheme::Medallion)
        .connect()
        .await;
    let error = refused.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("key_text"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_no_readers_beside_services_that_know_of_none() {
    let store = PostgresStore::open().await;
    let client = client(&store).await;
    let lock = client.lock("order:process:42").unwrap().shared();
    let error = lock.acquire(PATIENCE).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(
        error.to_string().contains("KeyScheme::Medallion"),
        "{error}"
    );
    drop(take(&client, name("order:process:42")).await);
}
