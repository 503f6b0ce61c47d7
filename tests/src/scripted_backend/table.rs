//! The locks that a scripted backend keeps.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::LockName;
use lock_core::backend::{Attempt, Lease, LossReason};
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
    holders: HashMap<LockName, (u64, Lease)>,
    tried: HashMap<LockName, u32>,
    under_way: HashMap<(LockName, usize), u32>,
    most_under_way: u32,
    last: u64,
    /// When to ask again; changes are notified while there is none.
    retry_in: Option<Duration>,
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

    pub(super) fn take(&self, name: &LockName) -> Attempt<(u64, Lease)> {
        let mut rows = self.rows();
        if rows.holders.contains_key(name) {
            return Attempt::Held {
                retry_in: rows.retry_in,
            };
        }
        rows.last += 1;
        let hold = (rows.last, Lease::unbounded());
        rows.holders.insert(name.clone(), hold.clone());
        Attempt::Granted(hold)
    }

    /// Ends the hold with this number, if it is the present one; whether it was.
    pub(super) fn free(&self, name: &LockName, number: u64) -> bool {
        let mut rows = self.rows();
        if rows
            .holders
            .get(name)
            .is_none_or(|(holder, _)| *holder != number)
        {
            return false;
        }
        rows.holders.remove(name);
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
        let held = self.rows().holders.get(name).cloned();
        let (number, lease) = held.expect("a lock that is to be lost is held");
        lease.lose(reason);
        self.free(name, number);
    }

    pub(super) fn lease_of(&self, name: &LockName) -> Lease {
        let (_, lease) = &self.rows().holders[name];
        lease.clone()
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
        self.rows().holders.len()
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
