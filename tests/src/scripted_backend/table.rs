//! The locks that a scripted backend keeps.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::LockName;
use lock_core::backend::{Attempt, Lease, LockRequest, LossReason};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Truthful, whatever the answers are.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Mutex<Rows>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Rows {
    writers: HashMap<LockName, (u64, Lease)>,
    /// Never beside a writer of the same name, nor without one reader at least.
    readers: HashMap<LockName, BTreeMap<u64, Lease>>,
    tried: HashMap<LockName, u32>,
    under_way: HashMap<(LockName, usize), u32>,
    most_under_way: u32,
    last: u64,
    /// When to ask again; changes are notified while there is none.
    retry_in: Option<Duration>,
}

impl Rows {
    /// The writer, or the first of the readers.
    fn holder(&self, name: &LockName) -> (u64, Lease) {
        let reader = || {
            let (number, lease) = self.readers.get(name)?.first_key_value()?;
            Some((*number, lease.clone()))
        };
        let holder = self.writers.get(name).cloned().or_else(reader);
        holder.expect("a lock that is to be lost is held")
    }
}

impl Table {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a try by a connection, until [`Table::answered`].
    pub(super) fn asked(&self, name: &LockName, connection: usize) {
        let rows = &mut *self.rows();
        *rows.tried.entry(name.clone()).or_default() += 1;
        let under_way = rows
            .under_way
            .entry((name.clone(), connection))
            .or_default();
        *under_way += 1;
        rows.most_under_way = rows.most_under_way.max(*under_way);
    }

    pub(super) fn answered(&self, name: &LockName, connection: usize) {
        if let Some(under_way) = self.rows().under_way.get_mut(&(name.clone(), connection)) {
            *under_way -= 1;
        }
    }

    pub(super) fn take(&self, request: &LockRequest) -> Attempt<(u64, Lease)> {
        let (name, is_shared) = (request.name(), request.is_shared());
        let mut rows = self.rows();
        let is_read = rows.readers.contains_key(name);
        if rows.writers.contains_key(name) || (is_read && !is_shared) {
            return Attempt::Held {
                retry_in: rows.retry_in,
            };
        }
        rows.last += 1;
        let hold = (rows.last, Lease::unbounded());
        if is_shared {
            let readers = rows.readers.entry(name.clone()).or_default();
            readers.insert(hold.0, hold.1.clone());
        } else {
            rows.writers.insert(name.clone(), hold.clone());
        }
        Attempt::Granted(hold)
    }

    /// Ends the hold with this number, if it is a present one; whether it was.
    pub(super) fn free(&self, name: &LockName, number: u64) -> bool {
        let mut rows = self.rows();
        let was_writer = rows
            .writers
            .get(name)
            .is_some_and(|(writer, _)| *writer == number);
        let readers = rows.readers.get_mut(name);
        if was_writer {
            rows.writers.remove(name);
        } else if let Some(readers) = readers.filter(|readers| readers.contains_key(&number)) {
            readers.remove(&number);
            if !readers.is_empty() {
                return true;
            }
            rows.readers.remove(name);
        } else {
            return false;
        }
        let silent = rows.retry_in.is_some();
        drop(rows);
        if !silent {
            self.changed.notify_waiters();
        }
        true
    }

    pub(super) fn rumour(&self) {
        self.changed.notify_waiters();
    }

    pub(super) fn lose(&self, name: &LockName, reason: LossReason) {
        let (number, lease) = self.rows().holder(name);
        lease.lose(reason);
        self.free(name, number);
    }

    pub(super) fn lease_of(&self, name: &LockName) -> Lease {
        self.rows().holder(name).1
    }

    pub(super) fn changed(&self) -> std::pin::Pin<Box<OwnedNotified>> {
        let mut changed = Box::pin(Arc::clone(&self.changed).notified_owned());
        changed.as_mut().enable();
        changed
    }

    pub(super) fn token(&self) -> u64 {
        let mut rows = self.rows();
        rows.last += 1;
        rows.last
    }

    pub(super) fn fall_silent(&self, retry_in: Duration) {
        self.rows().retry_in = Some(retry_in);
    }

    pub(super) fn held(&self) -> usize {
        let rows = self.rows();
        let readers = rows.readers.values().map(BTreeMap::len);
        rows.writers.len() + readers.sum::<usize>()
    }

    pub(super) fn tried(&self, name: &LockName) -> u32 {
        self.rows().tried.get(name).copied().unwrap_or_default()
    }

    pub(super) fn under_way(&self, name: &LockName) -> u32 {
        let rows = self.rows();
        let of_name = rows
            .under_way
            .iter()
            .filter(|((other, _), _)| other == name);
        of_name.map(|(_, count)| count).sum()
    }

    pub(super) fn most_under_way(&self) -> u32 {
        self.rows().most_under_way
    }
}
