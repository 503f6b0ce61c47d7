//! What several of these tests need.

use std::sync::Arc;
use std::time::Duration;

use lock_core::postgres::{PostgresBackend, PostgresBuilder};
use lock_core::{LockGuard, LockName, LockPolicy, LockProvider};
use lock_tests::child::Child;
use lock_tests::servers::PostgresServer;
use lock_tests::{PostgresStore, Store, boottime};

/// The lease of all sessions here.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// How much earlier than its lease a guard ends: 1 % and 50 ms.
pub(crate) const MARGIN: Duration = Duration::from_millis(70);

/// How late the locks of a holder that has fallen silent can be had.
pub(crate) const GRANTED_WITHIN: Duration = Duration::from_millis(2_500);

/// How soon a holder knows that its session has ended.
pub(crate) const NOTICED: Duration = Duration::from_millis(50);

/// How often something is done whose time is told in milliseconds.
pub(crate) const ROUNDS: usize = 5;

/// Checks how long holders took to know that their sessions had ended.
///
/// Three threads and a process of the server take turns until they do. A machine that is busy with
/// other work is late by that at times; what the library adds, it adds in every round.
pub(crate) fn noticed(took: &[Duration]) {
    assert_eq!(took.len(), ROUNDS);
    assert!(took.iter().min() <= Some(&NOTICED), "{took:?}");
    assert!(took.iter().max() <= Some(&(NOTICED + BOUND)), "{took:?}");
}

/// What the library may add to a wait.
pub(crate) const BOUND: Duration = Duration::from_millis(100);

/// Longer than any hand-over takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn name() -> LockName {
    numbered(42)
}

pub(crate) fn numbered(number: usize) -> LockName {
    LockName::new("order", "process", number).unwrap()
}

pub(crate) fn builder(server: &PostgresServer) -> PostgresBuilder {
    PostgresBackend::builder(server.url()).lease(LEASE)
}

/// A provider over a connection that leads through this URL.
pub(crate) async fn client(url: &str) -> LockProvider {
    LockProvider::new(backend(url).await)
}

pub(crate) async fn backend(url: &str) -> PostgresBackend {
    let builder = PostgresBackend::builder(url).lease(LEASE);
    builder.connect().await.unwrap()
}

/// Takes a lock that is free.
pub(crate) async fn take(client: &LockProvider, name: LockName) -> LockGuard {
    acquire(client, name, Duration::ZERO).await
}

/// Takes a lock within this time.
pub(crate) async fn acquire(
    client: &LockProvider,
    name: LockName,
    policy: impl Into<LockPolicy>,
) -> LockGuard {
    client.lock(name).unwrap().acquire(policy).await.unwrap()
}

/// Whether the lock is refused at once.
pub(crate) async fn is_held(client: &LockProvider, name: LockName) -> bool {
    let tried = client.lock(name).unwrap().try_acquire(Duration::ZERO).await;
    tried.unwrap().is_none()
}

pub(crate) async fn child(store: &PostgresStore) -> Child {
    Child::start(env!("CARGO_BIN_EXE_locker"), &store.address().unwrap()).await
}

/// How the hold of a lock ended, by the clock of [`boottime`].
#[derive(Debug)]
pub(crate) struct Ended {
    /// When it was seen to be valid for the last time.
    pub(crate) last_valid: u64,
    /// When whoever listened was told.
    pub(crate) told: u64,
}

impl Ended {
    /// Looks at a guard until its lock is lost.
    pub(crate) async fn of(guard: Arc<LockGuard>) -> Self {
        let lost = guard.lost();
        let told = tokio::spawn(async move {
            lost.await;
            boottime()
        });
        let mut last_valid = 0;
        loop {
            let before = boottime();
            if !guard.is_valid() {
                break;
            }
            last_valid = before;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let told = told.await.unwrap();
        assert!(!guard.is_valid(), "a loss lasts");
        Self { last_valid, told }
    }
}

/// A duration in the nanoseconds of [`boottime`].
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}
