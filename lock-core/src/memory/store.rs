//! The table of locks and of who waits for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Shared;
use crate::backend::Lease;
use crate::hand_over::HandOver;
use crate::panics::catch;
use crate::{Holder, ListedLock, LockMode, LockName, LossReason};

#[derive(Default)]
pub(super) struct Store(Mutex<Table>);

/// At most one holder per name, since [`Store::try_take`] replaces a holder only when its lease has
/// ended, and a lease that has ended stays ended.
#[derive(Default)]
struct Table {
    rows: HashMap<LockName, Row>,
    last_id: u64,
    /// Locks that are left for a moment to the client that has waited longest.
    handed_over: HandOver<LockName, u64>,
    /// What clients are called, each text once.
    instances: Vec<String>,
}

#[derive(Default)]
struct Row {
    holder: Option<Holding>,
    /// Boxed: most locks have no waiters.
    waiting: Option<Box<Waiting>>,
}

/// Clients and their wake-ups, in order of arrival.
type Waiting = BTreeMap<u64, (u64, oneshot::Sender<()>)>;

struct Holding {
    id: u64,
    lease: Lease,
    since: Moment,
    /// Of the client.
    instance: u16,
}

/// A time until 2106, in few bytes: there is one for each lock.
struct Moment {
    seconds: u32,
    millis: u16,
}

impl Moment {
    fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        Self {
            seconds: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
            millis: u16::try_from(now.subsec_millis()).unwrap_or_default(),
        }
    }

    fn time(&self) -> SystemTime {
        let seconds = UNIX_EPOCH + Duration::from_secs(self.seconds.into());
        seconds + Duration::from_millis(self.millis.into())
    }
}

pub(super) enum Granting {
    Granted(u64),
    Held { retry_in: Option<Duration> },
}

impl Store {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number by which this text is known here; `None` where there are too many.
    pub(super) fn instance(&self, text: &str) -> Option<u16> {
        let mut table = self.table();
        let known = table.instances.iter().position(|known| known == text);
        let number = u16::try_from(known.unwrap_or(table.instances.len())).ok()?;
        if known.is_none() {
            table.instances.push(text.to_owned());
        }
        Some(number)
    }

    /// Who holds the lock of this name.
    pub(super) fn holder(&self, name: &LockName) -> Option<Holder> {
        let table = self.table();
        table.holder(table.rows.get(name)?)
    }

    /// What is held: up to one more than `limit`, if there is so much.
    pub(super) fn list(&self, limit: usize) -> Vec<ListedLock> {
        let table = self.table();
        let held = table.rows.iter().filter_map(|(name, row)| {
            let lock = ListedLock::new(name.as_str(), table.holder(row)?);
            Some(lock.with_name(name.clone()).with_awaited(row.is_awaited()))
        });
        held.take(limit.saturating_add(1)).collect()
    }

    pub(super) fn try_take(
        &self,
        client: u64,
        instance: u16,
        name: &LockName,
        lease: &Lease,
    ) -> Granting {
        let mut guard = self.table();
        let table = &mut *guard;
        table.last_id += 1;
        let id = table.last_id;
        let row = table.rows.get(name);
        if let Some(Holding { lease: held, .. }) = row.and_then(|row| row.holder.as_ref())
            && !held.has_ended()
        {
            return Granting::Held {
                retry_in: held.remaining(),
            };
        }
        if let Some((until, to)) = table.handed_over.get(name) {
            let left = until.saturating_duration_since(Instant::now());
            if to != client && !left.is_zero() {
                return Granting::Held {
                    retry_in: Some(left),
                };
            }
            table.handed_over.end(name);
        }
        let row = match table.rows.get_mut(name) {
            Some(row) => row,
            None => table.rows.entry(name.clone()).or_default(),
        };
        let ended = row.holder.replace(Holding {
            id,
            lease: lease.clone(),
            instance,
            since: Moment::now(),
        });
        drop(guard);
        // Wakes those who wait for its loss, which is not for under a lock of ours.
        if let Some(Holding { lease: ended, .. }) = ended {
            let _ = ended.reason();
        }
        Granting::Granted(id)
    }

    /// Releases what was granted under this id; a later holder is not touched.
    pub(super) fn release(&self, name: &LockName, id: u64) {
        self.free(name, |holder| *holder == id);
    }

    /// Ends the lease of the holder and frees the lock; whether there was one.
    pub(super) fn revoke(&self, name: &LockName, reason: LossReason) -> bool {
        let held = self
            .table()
            .rows
            .get(name)
            .and_then(|row| row.holder.as_ref())
            .map(|holding| (holding.id, holding.lease.clone()));
        let Some((id, lease)) = held else {
            return false;
        };
        // Before the lock is free.
        lease.lose(reason);
        self.free(name, |holder| *holder == id);
        true
    }

    fn free(&self, name: &LockName, is_holder: impl FnOnce(&u64) -> bool) {
        let mut table = self.table();
        let Some(row) = table.rows.get_mut(name) else {
            return;
        };
        if !row
            .holder
            .as_ref()
            .is_some_and(|holding| is_holder(&holding.id))
        {
            return;
        }
        row.holder = None;
        let waiting = row.waiting.take().map(|waiting| *waiting);
        let waiting = waiting.unwrap_or_default();
        if let Some((client, _)) = waiting.values().next() {
            let now = Instant::now();
            table.handed_over.forget_ended(now);
            table.handed_over.begin(name.clone(), *client, now);
        }
        table.remove_if_idle(name);
        drop(table);
        // All of them: the first may have left meanwhile.
        for (_, waiter) in waiting.into_values() {
            // A waker that panics is no matter of the caller that releases.
            let _ = catch(|| waiter.send(()));
        }
    }

    pub(super) fn register(&self, client: u64, name: &LockName) -> (u64, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        table.last_id += 1;
        let id = table.last_id;
        table
            .rows
            .entry(name.clone())
            .or_default()
            .waiting
            .get_or_insert_default()
            .insert(id, (client, sender));
        (id, receiver)
    }

    fn unregister(&self, name: &LockName, registration: u64) {
        let mut table = self.table();
        let waiter = table
            .rows
            .get_mut(name)
            .and_then(|row| row.waiting.as_mut()?.remove(&registration));
        table.remove_if_idle(name);
        drop(table);
        drop(waiter);
    }

    pub(super) fn held(&self) -> usize {
        self.table()
            .rows
            .values()
            .filter(|row| row.holder.is_some())
            .count()
    }
}

impl Table {
    /// Who holds the lock of this row.
    fn holder(&self, row: &Row) -> Option<Holder> {
        let holding = row.holder.as_ref()?;
        if holding.lease.has_ended() {
            return None;
        }
        let holder = Holder::new(LockMode::Exclusive).with_since(holding.since.time());
        Some(holder.with_instance(&self.instances[usize::from(holding.instance)]))
    }

    fn remove_if_idle(&mut self, name: &LockName) {
        if self.rows.get(name).is_some_and(Row::is_idle) {
            self.rows.remove(name);
        }
    }
}

impl Row {
    fn is_awaited(&self) -> bool {
        self.waiting.as_ref().is_some_and(|all| !all.is_empty())
    }

    fn is_idle(&self) -> bool {
        self.holder.is_none() && !self.is_awaited()
    }
}

/// Unregisters a waiter when it is dropped.
pub(super) struct Leaving {
    pub(super) shared: Arc<Shared>,
    pub(super) name: LockName,
    pub(super) registration: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.shared.store.unregister(&self.name, self.registration);
    }
}
