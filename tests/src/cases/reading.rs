//! A lock that readers of two clients hold together, for the cases.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use lock_core::{Acquire, DistributedLock, LockError, LockGuard, LockName, LockProvider};
use tokio::task::JoinHandle;

use super::PATIENCE;
use crate::{Harness, eventually, is_held};

/// A lock as two clients see it, one of which readers and writers share with each other.
pub(super) struct Sides {
    pub(super) here: LockProvider,
    pub(super) there: LockProvider,
    pub(super) name: LockName,
}

impl Sides {
    /// None for a store without readers, which says so to each that would be one.
    pub(super) async fn of(harness: &Harness) -> Option<Self> {
        let sides = Self {
            here: harness.client().await,
            there: harness.client().await,
            name: harness.name(),
        };
        if harness.store.has_readers() {
            return Some(sides);
        }
        let read = reader(&sides.here, &sides.name);
        for wait in [Duration::ZERO, PATIENCE] {
            let error = read.acquire(wait).await.unwrap_err();
            assert!(error.is_misconfigured(), "{error}");
            assert!(error.to_string().contains("`shared`"), "{error}");
            assert_eq!(error.lock(), Some(&sides.name));
        }
        assert!(!is_held(&sides.here, &sides.name).await);
        None
    }

    pub(super) fn clients(&self) -> [&LockProvider; 2] {
        [&self.here, &self.there]
    }

    /// Returns when a writer waits for readers: from then on no other reader gets in.
    pub(super) async fn a_writer_waits(&self) {
        for client in self.clients() {
            eventually("the writer keeps readers out", || async {
                !is_readable(client, &self.name).await
            })
            .await;
        }
    }
}

pub(super) fn reader(client: &LockProvider, name: &LockName) -> DistributedLock {
    client.lock(name).unwrap().shared()
}

/// Reads a lock that no writer holds or waits for. What one that was served has left keeps readers out for a moment: a
/// try of it can still be on its way.
pub(super) async fn read(client: &LockProvider, name: &LockName) -> LockGuard {
    reader(client, name).acquire(PATIENCE).await.unwrap()
}

pub(super) async fn is_readable(client: &LockProvider, name: &LockName) -> bool {
    match reader(client, name).try_acquire(Duration::ZERO).await {
        Ok(Some(guard)) => guard.release().await.is_ok(),
        Ok(None) => false,
        Err(error) => panic!("{error}"),
    }
}

fn spawn(acquire: Acquire) -> JoinHandle<Result<LockGuard, LockError>> {
    tokio::spawn(acquire)
}

pub(super) fn spawn_reader(
    client: &LockProvider,
    name: &LockName,
) -> JoinHandle<Result<LockGuard, LockError>> {
    spawn(reader(client, name).acquire_owned(PATIENCE))
}

pub(super) fn spawn_writer(
    client: &LockProvider,
    name: &LockName,
) -> JoinHandle<Result<LockGuard, LockError>> {
    spawn(client.lock(name).unwrap().acquire_owned(PATIENCE))
}

/// A reader that is in line behind a writer when this returns.
pub(super) async fn line_up(
    client: &LockProvider,
    name: &LockName,
) -> JoinHandle<Result<LockGuard, LockError>> {
    let mut acquire = reader(client, name).acquire_owned(PATIENCE);
    let is_kept_out = poll_fn(|cx| Poll::Ready(Pin::new(&mut acquire).poll(cx).is_pending()));
    assert!(is_kept_out.await, "a writer waits");
    spawn(acquire)
}

pub(super) async fn granted(waiting: JoinHandle<Result<LockGuard, LockError>>) -> LockGuard {
    waiting.await.unwrap().unwrap()
}
