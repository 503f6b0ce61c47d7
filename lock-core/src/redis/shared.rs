//! What the thread of a backend shares with the tasks that use it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::oneshot;

use super::command::Command;
use super::key::{Key, Owner};
use super::sentinel::Sentinels;
use super::servers::Servers;
use super::settings::Settings;
use super::waiting::Waiting;
use crate::backend::{BootClock, Clock, Lease};
use crate::server::{Inbox, Stop};
use crate::{LockError, LossReason};

pub(super) struct Shared {
    pub(super) settings: Settings,
    /// Which say what server it is.
    pub(super) sentinels: Option<Sentinels>,
    pub(super) inbox: Inbox<Command>,
    pub(super) held: Held,
    pub(super) waiting: Waiting,
    pub(super) servers: Servers,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stop: Stop,
    /// The slot of each bucket, once a cluster has told it.
    pub(super) slots: OnceLock<Vec<u16>>,
    owners: AtomicU64,
}

impl Shared {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            sentinels: Sentinels::of(&settings),
            settings,
            inbox: Inbox::default(),
            held: Held::default(),
            waiting: Waiting::default(),
            servers: Servers::default(),
            clock: Arc::new(BootClock),
            stop: Stop::default(),
            slots: OnceLock::new(),
            owners: AtomicU64::new(0),
        }
    }

    /// For an acquire that is sent over the connection of this identity.
    pub(super) fn new_owner(&self, connection: u64) -> Owner {
        Owner {
            connection,
            number: self.owners.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Ends the thread, also while others use it; completes when its connections are closed.
    pub(super) async fn close(&self) {
        self.stop.ask();
        self.inbox.close();
        // What is not released by now ends with its lease.
        self.held.lose(LossReason::Shutdown, |_| true);
        self.stop.finished().await;
    }

    /// Waits for an answer of the driver. One that is gone gives none.
    pub(super) async fn answered<T>(
        &self,
        answer: oneshot::Receiver<Result<T, LockError>>,
    ) -> Result<T, LockError> {
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Why there is no answer: the driver that was asked is gone.
    pub(super) fn gone(&self) -> LockError {
        if self.stop.is_asked() {
            return LockError::closed();
        }
        LockError::unavailable(
            "the driver of Redis locks panicked before it answered, and connects again",
        )
    }
}

/// Whoever uses a backend: when the last of them is gone, its thread ends.
pub(super) struct Client(pub(super) Arc<Shared>);

impl Drop for Client {
    fn drop(&mut self) {
        self.0.inbox.close();
    }
}

/// What is held and renewed, by the number of its owner.
#[derive(Default)]
pub(super) struct Held(Mutex<HashMap<u64, HeldLock>>);

#[derive(Clone)]
pub(super) struct HeldLock {
    pub(super) key: Key,
    pub(super) owner: Owner,
    pub(super) lease: Lease,
}

impl Held {
    fn locks(&self) -> MutexGuard<'_, HashMap<u64, HeldLock>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, lock: HeldLock) {
        self.locks().insert(lock.owner.number, lock);
    }

    pub(super) fn remove(&self, owner: Owner) {
        let lock = self.locks().remove(&owner.number);
        // Its drop can run a waker: not under the lock.
        drop(lock);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.locks().is_empty()
    }

    /// What is still ours.
    pub(super) fn all(&self) -> Vec<HeldLock> {
        let all: Vec<_> = self.locks().values().cloned().collect();
        all.into_iter()
            .filter(|lock| lock.lease.is_valid())
            .collect()
    }

    /// Ends the leases of these.
    pub(super) fn lose(&self, reason: LossReason, is_lost: impl Fn(&Key) -> bool) {
        let mut lost = Vec::new();
        self.locks().retain(|_, lock| {
            let keep = !is_lost(&lock.key);
            if !keep {
                lost.push(lock.lease.clone());
            }
            keep
        });
        lost.iter().for_each(|lease| lease.lose(reason));
    }
}
