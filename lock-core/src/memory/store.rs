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

/// Each name has at most one writer, and no reader beside it: [`Store::try_take`] adds a holder only where none is
/// that excludes it, but for those whose lease has ended, and a lease that has ended stays ended.
#[derive(Default)]
struct Table {
    rows: HashMap<LockName, Row>,
    last_id: u64,
    /// Locks that are left for a moment to the client that has waited longest.
    handed_over: HandOver<LockName, Client>,
    /// What clients are called, each text once.
    instances: Vec<String>,
}

/// Which clone asks, and how it would hold the lock. In few bytes: there is one for each waiter.
#[derive(Clone, Copy)]
pub(super) struct Client {
    pub(super) number: u32,
    pub(super) mode: LockMode,
}

#[derive(Default)]
struct Row {
    writer: Option<Holding>,
    /// Boxed: most locks have neither readers nor waiters.
    crowd: Option<Box<Crowd>>,
}

#[derive(Default)]
struct Crowd {
    /// By the number of their grant, so the first since longest.
    readers: BTreeMap<u64, Holding>,
    waiting: Waiting,
}

/// Clients and their wake-ups, in order of arrival.
type Waiting = BTreeMap<u64, (Client, oneshot::Sender<()>)>;

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

    /// The text of that number.
    pub(super) fn instance_of(&self, number: u16) -> Option<String> {
        self.table().instances.get(usize::from(number)).cloned()
    }

    /// Who holds the lock of this name; of several readers the first.
    pub(super) fn holder(&self, name: &LockName) -> Option<Holder> {
        let table = self.table();
        table.holders(table.rows.get(name)?).next()
    }

    /// What is held, a reader each: up to one more than `limit`, if there is so much.
    pub(super) fn list(&self, limit: usize) -> Vec<ListedLock> {
        let table = self.table();
        let held = table.rows.iter().flat_map(|(name, row)| {
            table.holders(row).map(|holder| {
                let lock = ListedLock::new(name.as_str(), holder);
                lock.with_name(name.clone()).with_awaited(row.is_awaited())
            })
        });
        held.take(limit.saturating_add(1)).collect()
    }

    /// Grants the lock, or says when a lease may end that is in the way.
    ///
    /// # Why readers do not starve a writer
    ///
    /// A writer that was refused registers, and a reader that comes while one is registered is refused. What wakes a
    /// writer uses its registration up: by then the lock is free, and [left](HandOver) to the first that waits.
    /// A writer that gives up drops its registration, which wakes the readers that were refused for it.
    pub(super) fn try_take(
        &self,
        client: Client,
        instance: u16,
        name: &LockName,
        lease: &Lease,
    ) -> Granting {
        let mut guard = self.table();
        let table = &mut *guard;
        table.last_id += 1;
        let id = table.last_id;
        let is_shared = client.mode == LockMode::Shared;
        if let Some(row) = table.rows.get(name) {
            if let Some(retry_in) = row.held_against(client.mode) {
                return Granting::Held { retry_in };
            }
            if is_shared && row.is_awaited_by_writer() {
                return Granting::Held { retry_in: None };
            }
        }
        if let Some((until, to)) = table.handed_over.get(name) {
            let left = until.saturating_duration_since(Instant::now());
            // What is left to a reader others may read as well.
            let is_left = to.number == client.number || (is_shared && to.mode == client.mode);
            if !is_left && !left.is_zero() {
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
        let ended = row.take_ended(client.mode);
        let holding = Holding {
            id,
            lease: lease.clone(),
            instance,
            since: Moment::now(),
        };
        if is_shared {
            let crowd = row.crowd.get_or_insert_default();
            crowd.readers.insert(id, holding);
        } else {
            row.writer = Some(holding);
        }
        drop(guard);
        // Wakes those who wait for its loss, which is not for under a lock of ours.
        for Holding { lease, .. } in ended {
            let _ = lease.reason();
        }
        Granting::Granted(id)
    }

    /// Releases what was granted under this id; a later holder is not touched.
    pub(super) fn release(&self, name: &LockName, id: u64) {
        let mut table = self.table();
        let Some(row) = table.rows.get_mut(name) else {
            return;
        };
        let Some(holding) = row.remove(id) else {
            return;
        };
        if row.is_held() {
            drop(table);
            return drop(holding);
        }
        let waiting = row.take_waiting();
        if let Some((client, _)) = waiting.values().next() {
            let now = Instant::now();
            table.handed_over.forget_ended(now);
            table.handed_over.begin(name.clone(), *client, now);
        }
        table.remove_if_idle(name);
        drop(table);
        drop(holding);
        // All of them: the first may have left meanwhile.
        waiting.into_values().for_each(wake);
    }

    /// Ends the leases of the holders and frees the lock; whether there was one.
    pub(super) fn revoke(&self, name: &LockName, reason: LossReason) -> bool {
        let table = self.table();
        let row = table.rows.get(name).into_iter();
        let held: Vec<_> = row
            .flat_map(Row::holdings)
            .map(|holding| (holding.id, holding.lease.clone()))
            .collect();
        drop(table);
        for (id, lease) in &held {
            // Before the lock is free.
            lease.lose(reason);
            self.release(name, *id);
        }
        !held.is_empty()
    }

    pub(super) fn register(&self, client: Client, name: &LockName) -> (u64, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        table.last_id += 1;
        let id = table.last_id;
        let row = table.rows.entry(name.clone()).or_default();
        let crowd = row.crowd.get_or_insert_default();
        crowd.waiting.insert(id, (client, sender));
        (id, receiver)
    }

    fn unregister(&self, name: &LockName, registration: u64) {
        let mut table = self.table();
        let Some(row) = table.rows.get_mut(name) else {
            return;
        };
        let waiter = row.remove_waiter(registration);
        let was_writer = (waiter.as_ref()).is_some_and(|(client, _)| client.is_writer());
        // They may read now that no writer waits.
        let is_open = row.held_against(LockMode::Shared).is_none();
        let readers = match was_writer && is_open && !row.is_awaited_by_writer() {
            true => row.take_waiting(),
            false => Waiting::new(),
        };
        table.remove_if_idle(name);
        drop(table);
        drop(waiter);
        readers.into_values().for_each(wake);
    }

    pub(super) fn held(&self) -> usize {
        self.table()
            .rows
            .values()
            .filter(|row| row.has_holder())
            .count()
    }
}

/// A waker that panics is no matter of the caller that releases.
fn wake((_, waiter): (Client, oneshot::Sender<()>)) {
    let _ = catch(|| waiter.send(()));
}

impl Client {
    fn is_writer(self) -> bool {
        self.mode == LockMode::Exclusive
    }
}

impl Table {
    /// Who holds the lock of this row.
    fn holders<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = Holder> + 'a {
        let mode = match row.writer {
            Some(_) => LockMode::Exclusive,
            None => LockMode::Shared,
        };
        let live = row.holdings().filter(|holding| !holding.lease.has_ended());
        live.map(move |holding| {
            let holder = Holder::new(mode).with_since(holding.since.time());
            holder.with_instance(&self.instances[usize::from(holding.instance)])
        })
    }

    fn remove_if_idle(&mut self, name: &LockName) {
        if self.rows.get(name).is_some_and(Row::is_idle) {
            self.rows.remove(name);
        }
    }
}

impl Row {
    fn crowd(&self) -> impl Iterator<Item = &Crowd> {
        self.crowd.as_deref().into_iter()
    }

    fn readers(&self) -> impl Iterator<Item = &Holding> {
        self.crowd().flat_map(|crowd| crowd.readers.values())
    }

    /// Its holders: a writer, or readers.
    fn holdings(&self) -> impl Iterator<Item = &Holding> {
        self.writer.iter().chain(self.readers())
    }

    /// Whether it is held by one that excludes a holder of this mode; if so, after which time it may not be.
    fn held_against(&self, mode: LockMode) -> Option<Option<Duration>> {
        let readers = (mode == LockMode::Exclusive).then(|| self.readers());
        let others = self.writer.iter().chain(readers.into_iter().flatten());
        let live = others.filter(|holding| !holding.lease.has_ended());
        // By the last of them; one without an end is released, or never is.
        live.map(|holding| holding.lease.remaining())
            .reduce(|one, other| Some(one?.max(other?)))
    }

    /// Those whose leases have ended, before one of this mode holds the lock.
    fn take_ended(&mut self, mode: LockMode) -> impl Iterator<Item = Holding> + use<> {
        let readers = match (&mut self.crowd, mode) {
            (Some(crowd), LockMode::Exclusive) => std::mem::take(&mut crowd.readers),
            _ => BTreeMap::new(),
        };
        self.writer.take().into_iter().chain(readers.into_values())
    }

    fn remove(&mut self, id: u64) -> Option<Holding> {
        if let Some(writer) = self.writer.take_if(|writer| writer.id == id) {
            return Some(writer);
        }
        self.crowd.as_mut()?.readers.remove(&id)
    }

    fn remove_waiter(&mut self, registration: u64) -> Option<(Client, oneshot::Sender<()>)> {
        self.crowd.as_mut()?.waiting.remove(&registration)
    }

    fn take_waiting(&mut self) -> Waiting {
        let crowd = self.crowd.as_mut();
        crowd
            .map(|crowd| std::mem::take(&mut crowd.waiting))
            .unwrap_or_default()
    }

    /// Also one whose lease has ended.
    fn has_holder(&self) -> bool {
        self.holdings().next().is_some()
    }

    fn is_held(&self) -> bool {
        self.holdings().any(|holding| !holding.lease.has_ended())
    }

    fn is_awaited(&self) -> bool {
        self.crowd().any(|crowd| !crowd.waiting.is_empty())
    }

    fn is_awaited_by_writer(&self) -> bool {
        let mut waiting = self.crowd().flat_map(|crowd| crowd.waiting.values());
        waiting.any(|(client, _)| client.is_writer())
    }

    fn is_idle(&self) -> bool {
        !self.has_holder() && !self.is_awaited()
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
