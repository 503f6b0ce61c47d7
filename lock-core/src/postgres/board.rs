//! Who waits for a change, and locks that were taken for them.
//!
//! The driver tries for those who wait, for all of them in one statement. What it is granted is
//! *parked* here under the key; the first who waits is woken and finds it. A parked grant is an
//! ordinary one: dropped, it is released.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::backend::PostgresGrant;
use super::desk::Handle;
use crate::name::key::PostgresKeys;

/// Whoever was woken takes what is parked at once, or says that it left; this is for a task that
/// nobody polls any more.
const PARKED_FOR: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Board(Mutex<Table>);

#[derive(Default)]
struct Table {
    rows: HashMap<i64, Row>,
    last_id: u64,
    /// Keys that nobody waits for any more.
    left: Vec<i64>,
}

struct Row {
    keys: PostgresKeys,
    /// In order of arrival.
    watches: Vec<(u64, oneshot::Sender<()>)>,
    parked: Option<Parked>,
}

struct Parked {
    grant: PostgresGrant,
    /// The watch that was woken for it.
    woken: u64,
    since: Instant,
}

impl Board {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers somebody who waits for a change.
    pub(super) fn watch(handle: Arc<Handle>, keys: PostgresKeys) -> Watch {
        let (sender, woken) = oneshot::channel();
        let mut table = handle.board.table();
        table.last_id += 1;
        let id = table.last_id;
        let row = table.rows.entry(keys.lock).or_insert_with(|| Row {
            keys,
            watches: Vec::with_capacity(1),
            parked: None,
        });
        row.watches.push((id, sender));
        drop(table);
        Watch {
            handle,
            key: keys.lock,
            id,
            woken,
            is_over: false,
        }
    }

    pub(super) fn is_waited_for(&self, key: i64) -> bool {
        let table = self.table();
        table.rows.get(&key).is_some_and(Row::is_waited_for)
    }

    /// The keys of all who wait.
    pub(super) fn waited_for(&self) -> Vec<PostgresKeys> {
        let table = self.table();
        let waited = table.rows.values().filter(|row| row.is_waited_for());
        waited.map(|row| row.keys).collect()
    }

    /// The keys of a row that somebody waits for.
    pub(super) fn keys_of(&self, key: i64) -> Option<PostgresKeys> {
        let table = self.table();
        let row = table.rows.get(&key).filter(|row| row.is_waited_for())?;
        Some(row.keys)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table().rows.is_empty()
    }

    /// Keys that nobody waits for any more, since the last call.
    pub(super) fn take_left(&self) -> Vec<i64> {
        std::mem::take(&mut self.table().left)
    }

    /// Leaves a grant to whoever has waited longest. It comes back if nobody waits.
    pub(super) fn park(&self, key: i64, grant: PostgresGrant) -> Option<PostgresGrant> {
        let mut table = self.table();
        let row = table.rows.get_mut(&key).filter(|row| row.is_waited_for());
        let Some(row) = row else {
            return Some(grant);
        };
        let (woken, sender) = row.watches.remove(0);
        let since = Instant::now();
        let parked = Parked {
            grant,
            woken,
            since,
        };
        let replaced = row.parked.replace(parked);
        table.note_if_left(key);
        drop(table);
        // One that has just left finds what is parked for it when it is dropped.
        let _ = sender.send(());
        replaced.map(|parked| parked.grant)
    }

    /// Takes what is parked under a key.
    pub(super) fn take_parked(&self, key: i64) -> Option<PostgresGrant> {
        let mut table = self.table();
        let parked = table.rows.get_mut(&key)?.parked.take();
        table.remove_if_empty(key);
        drop(table);
        Some(parked?.grant)
    }

    /// Gives back what was parked for somebody who does not come.
    pub(super) fn sweep(&self) {
        let mut table = self.table();
        let stale: Vec<_> = (table.rows.iter())
            .filter(|(_, row)| row.parked.as_ref().is_some_and(Parked::is_stale))
            .map(|(key, _)| *key)
            .collect();
        let parked: Vec<_> = (stale.into_iter())
            .filter_map(|key| {
                let parked = table.rows.get_mut(&key)?.parked.take();
                table.remove_if_empty(key);
                parked
            })
            .collect();
        drop(table);
        drop(parked);
    }

    /// Wakes everybody: they ask for themselves, and hear why it does not work.
    pub(super) fn wake_all(&self) {
        let mut table = self.table();
        let keys: Vec<_> = table.rows.keys().copied().collect();
        let mut woken = Vec::new();
        for key in keys {
            if let Some(row) = table.rows.get_mut(&key) {
                woken.append(&mut row.watches);
            }
            table.note_if_left(key);
            table.remove_if_empty(key);
        }
        drop(table);
        for (_, sender) in woken {
            let _ = sender.send(());
        }
    }

    /// Wakes those who wait for one key.
    pub(super) fn wake(&self, key: i64) {
        let mut table = self.table();
        let row = table.rows.get_mut(&key);
        let woken = row.map(|row| std::mem::take(&mut row.watches));
        table.note_if_left(key);
        table.remove_if_empty(key);
        drop(table);
        for (_, sender) in woken.into_iter().flatten() {
            let _ = sender.send(());
        }
    }

    fn leave(&self, key: i64, id: u64) {
        let mut table = self.table();
        let Some(row) = table.rows.get_mut(&key) else {
            return;
        };
        let position = row.watches.iter().position(|(other, _)| *other == id);
        let watch = position.map(|position| row.watches.remove(position));
        let parked = row.parked.take_if(|parked| parked.woken == id);
        table.note_if_left(key);
        table.remove_if_empty(key);
        drop(table);
        drop((watch, parked));
    }
}

impl Table {
    fn note_if_left(&mut self, key: i64) {
        if self.rows.get(&key).is_some_and(|row| !row.is_waited_for()) {
            self.left.push(key);
        }
    }

    fn remove_if_empty(&mut self, key: i64) {
        if let Entry::Occupied(row) = self.rows.entry(key)
            && row.get().watches.is_empty()
            && row.get().parked.is_none()
        {
            row.remove();
        }
    }
}

impl Row {
    fn is_waited_for(&self) -> bool {
        !self.watches.is_empty()
    }
}

impl Parked {
    fn is_stale(&self) -> bool {
        self.since.elapsed() >= PARKED_FOR
    }
}

/// Completes when the lock may have become free. Registered from when it is made to its drop.
pub(super) struct Watch {
    handle: Arc<Handle>,
    key: i64,
    id: u64,
    woken: oneshot::Receiver<()>,
    is_over: bool,
}

impl Future for Watch {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over {
            return Poll::Ready(());
        }
        // An error is a sender that was dropped, which is a change as well.
        Pin::new(&mut self.woken).poll(cx).map(|_| {
            // Whoever waited asks now, and finds what is parked.
            self.is_over = true;
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_over {
            self.handle.board.leave(self.key, self.id);
            // Who left may have been registered on the server.
            self.handle.inbox.ring();
        }
    }
}
