//! What is held and renewed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::key::{LockKey, Owner};
use crate::LossReason;
use crate::backend::Lease;

/// Granted locks, by the number of their owner.
pub(crate) struct Held<K>(Mutex<HashMap<u64, HeldLock<K>>>);

#[derive(Clone)]
pub(crate) struct HeldLock<K> {
    pub(crate) key: K,
    pub(crate) owner: Owner,
    pub(crate) lease: Lease,
    /// The server that granted it, or renewed it last.
    pub(crate) server: u64,
    /// Until when it is to be kept, also where its holder ends without a release, on CLOCK_BOOTTIME.
    pub(crate) kept_until: Option<Duration>,
}

impl<K> HeldLock<K> {
    /// For how long it is to be kept from now on, if it is.
    pub(crate) fn kept_for(&self, now: Duration) -> Option<Duration> {
        left_of(self.kept_until, now)
    }
}

/// What is left of a time, if anything is.
pub(super) fn left_of(until: Option<Duration>, now: Duration) -> Option<Duration> {
    until?.checked_sub(now).filter(|left| !left.is_zero())
}

impl<K> Default for Held<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: LockKey> Held<K> {
    fn locks(&self) -> MutexGuard<'_, HashMap<u64, HeldLock<K>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, lock: HeldLock<K>) {
        self.locks().insert(lock.owner.number, lock);
    }

    pub(crate) fn remove(&self, owner: Owner) {
        let lock = self.locks().remove(&owner.number);
        // Its drop can run a waker: not under the lock.
        drop(lock);
    }

    /// Another server has it now.
    pub(crate) fn moved_to(&self, server: u64, owner: Owner) {
        if let Some(lock) = self.locks().get_mut(&owner.number) {
            lock.server = server;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.locks().is_empty()
    }

    /// What is still ours.
    pub(crate) fn all(&self) -> Vec<HeldLock<K>> {
        let all: Vec<_> = self.locks().values().cloned().collect();
        all.into_iter()
            .filter(|lock| lock.lease.is_valid())
            .collect()
    }

    /// Ends the leases of these.
    pub(crate) fn lose(&self, reason: LossReason, is_lost: impl Fn(&K) -> bool) {
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
