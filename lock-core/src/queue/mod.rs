//! The in-process queue: one line per name, first come, first served.
//!
//! The first in the line of a name has the *turn*: it alone may ask the backend for the
//! lock. A writer keeps the turn while it holds the lock; a reader [passes it on](Turn::read) as soon as it
//! was granted the lock. So any number of readers hold together, a writer that waits keeps those behind it in
//! line, and all are served in the order of their calls. A thousand tasks that wait for one name are one
//! waiter for the backend.
//!
//! # Why at most one has the turn of a name
//!
//! A line has one `owner`, a ticket that is never used twice. It is set when the line begins, and changed only by
//! what consumes the one [`Turn`] of the present owner: its drop, a grant that is handed on with it, and
//! [`Turn::read`]. A ticket becomes a turn only while it is the owner, and by that it is
//! used up: [`Ticket`] gives up its claim when it answers. A ticket that is dropped before it saw that it had
//! become the owner passes the turn on. All of it happens under one lock.
//!
//! # Why no reader is forgotten
//!
//! A reader is known from [`Turn::read`], which adds it under the lock under which it passes its turn on, until
//! its [`Reading`] is dropped, once. It has no place in the line, which ends with the turn of the last in it: a
//! caller that comes while only readers hold the lock begins another. A queue is [empty](Queue::emptied) when
//! it has neither lines nor readers, and so no holder.
//!
//! # Grants that are handed on
//!
//! A grant is in the line, for its owner, only from [`Turn::hand_on`] or [`Turn::hand_over`] until the
//! owner takes it with the turn, leaves it to the next, or [`Queue::recall`] takes it: it is received or
//! comes back, once. A grant that is left to the next can be of the other mode: the caller looks.

mod line;
#[cfg(all(test, lock_model))]
mod models;
#[cfg(all(test, not(lock_model)))]
mod tests;
mod ticket;
mod turn;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::mem;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::Notify;

pub(crate) use self::line::Stage;
use self::line::{Line, Waiter};
pub(crate) use self::ticket::{Called, Ticket};
pub(crate) use self::turn::{Reading, Turn};
use crate::LockMode;
use crate::sync::{Mutex, MutexGuard, lock};

/// The lines of all names. `G` is a grant that is handed on, `H` what identifies a holder.
pub(crate) struct Queue<K, G, H> {
    lines: Mutex<Lines<K, G, H>>,
    /// Told when the last line of a closed queue has ended.
    emptied: Notify,
}

struct Lines<K, G, H> {
    lines: HashMap<K, Line<G, H>>,
    /// Who holds a lock without its turn, by ticket, so the first since longest; of each at least one.
    readers: HashMap<K, BTreeMap<u64, H>>,
    last_ticket: u64,
    closed: bool,
}

/// The answer to [`Queue::enter`].
pub(crate) enum Entry<K: Key, G, H> {
    /// No caller had the turn.
    Turn(Turn<K, G, H>),
    /// Others are before us; and who holds the lock, if a task here does.
    Ticket(Ticket<K, G, H>, Option<H>),
    /// Others are before us, the lock is known to be held, and we would not wait; and who holds it,
    /// if a task here does.
    Refused(Option<H>),
    /// The queue is closed.
    Closed,
}

/// What a line looked like.
pub(crate) struct LineView<K, H> {
    pub(crate) key: K,
    /// What its owner does; none while only readers hold the lock.
    pub(crate) stage: Option<Stage<H>>,
    /// Who holds the lock without the turn, the first since longest.
    pub(crate) readers: Vec<H>,
    /// How many wait behind the owner.
    pub(crate) waiting: usize,
}

/// What lines are named by.
pub(crate) trait Key: Clone + Eq + Hash + Unpin {}
impl<K: Clone + Eq + Hash + Unpin> Key for K {}

impl<K: Key, G, H: Clone> Queue<K, G, H> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            lines: Mutex::new(Lines {
                lines: HashMap::new(),
                readers: HashMap::new(),
                last_ticket: 0,
                closed: false,
            }),
            emptied: Notify::new(),
        })
    }

    /// Gets in line. A caller that is `impatient` leaves as soon as it is known that the lock is held.
    pub(crate) fn enter(
        self: &Arc<Self>,
        key: &K,
        mode: LockMode,
        impatient: bool,
    ) -> Entry<K, G, H> {
        let mut lines = lock(&self.lines);
        if lines.closed {
            return Entry::Closed;
        }
        lines.last_ticket += 1;
        let ticket = lines.last_ticket;
        let Some(line) = lines.lines.get_mut(key) else {
            lines
                .lines
                .insert(key.clone(), Line::owned_by(ticket, mode));
            return Entry::Turn(self.turn(key, ticket));
        };
        let holder = line.stage.holder();
        if impatient && line.is_known() {
            return Entry::Refused(holder);
        }
        line.impatient += u32::from(impatient);
        let waiter = Waiter {
            waker: None,
            mode,
            impatient,
        };
        line.waiting.insert(ticket, waiter);
        let ticket = Ticket {
            queue: Arc::clone(self),
            key: key.clone(),
            ticket: Some(ticket),
        };
        Entry::Ticket(ticket, holder)
    }

    /// The turn of this name for a writer, if no caller has it; else who holds the lock, if a task here does.
    /// Where readers hold it, the backend says so.
    pub(crate) fn try_enter(self: &Arc<Self>, key: &K) -> Result<Turn<K, G, H>, Option<H>> {
        let mut lines = lock(&self.lines);
        if lines.closed {
            return Err(None);
        }
        if let Some(line) = lines.lines.get(key) {
            return Err(line.stage.holder());
        }
        lines.last_ticket += 1;
        let ticket = lines.last_ticket;
        let line = Line::owned_by(ticket, LockMode::Exclusive);
        lines.lines.insert(key.clone(), line);
        Ok(self.turn(key, ticket))
    }

    /// Lets no caller in any more, and calls off those that wait in line.
    pub(crate) fn close(&self) {
        let mut lines = lock(&self.lines);
        lines.closed = true;
        let waiting: Vec<_> = (lines.lines.values_mut())
            .map(|line| {
                line.impatient = 0;
                mem::take(&mut line.waiting)
            })
            .collect();
        drop(lines);
        (waiting.into_iter().flat_map(BTreeMap::into_values)).for_each(Waiter::wake);
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.lines).closed
    }

    /// Completes when no caller has a turn or reads any more, in a queue that is closed.
    pub(crate) async fn emptied(&self) {
        loop {
            let mut emptied = pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn is_empty(&self) -> bool {
        lock(&self.lines).is_empty()
    }

    /// Takes a grant back that its owner has not taken, if it is due. The owner asks for itself then.
    pub(crate) fn recall(&self, key: &K, is_due: impl FnOnce(&G) -> bool) -> Option<G> {
        let mut lines = lock(&self.lines);
        lines.lines.get_mut(key)?.gift.take_if(|gift| is_due(gift))
    }

    /// Who holds a lock: those with a turn, and readers.
    pub(crate) fn holders(&self) -> Vec<H> {
        let lines = lock(&self.lines);
        let writers = lines.lines.values().filter_map(|line| line.stage.holder());
        let readers = lines.readers.values().flat_map(BTreeMap::values).cloned();
        writers.chain(readers).collect()
    }

    /// Each name that a caller is in line for or reads. Copies: what a caller does with a holder can end its
    /// hold, which takes the lock of the lines.
    pub(crate) fn lines(&self) -> Vec<LineView<K, H>> {
        let lines = lock(&self.lines);
        let in_line = lines.lines.iter().map(|(key, line)| LineView {
            key: key.clone(),
            stage: Some(line.stage.clone()),
            readers: lines.readers_of(key),
            waiting: line.waiting.len(),
        });
        let only_read = lines.readers.keys();
        let only_read = only_read.filter(|key| !lines.lines.contains_key(key));
        let only_read = only_read.map(|key| LineView {
            key: key.clone(),
            stage: None,
            readers: lines.readers_of(key),
            waiting: 0,
        });
        in_line.chain(only_read).collect()
    }

    /// Who reads.
    fn readers(&self, key: &K) -> Vec<H> {
        lock(&self.lines).readers_of(key)
    }

    fn turn(self: &Arc<Self>, key: &K, ticket: u64) -> Turn<K, G, H> {
        Turn::of_owner(Arc::clone(self), key.clone(), ticket)
    }
}

impl<K: Key, G, H> Queue<K, G, H> {
    /// Makes the next in line the owner, of the gift as well, to be woken by the caller outside the lock.
    /// The gift comes back if no ticket waits, or if it is too late.
    fn hand_on(&self, key: &K, gift: G, in_time: impl FnOnce() -> bool) -> Result<Waiter, G> {
        let mut lines = lock(&self.lines);
        let line = lines.lines.get_mut(key).filter(|_| in_time());
        match line.and_then(|line| Some((line.call_next()?, line))) {
            Some((next, line)) => {
                line.gift = Some(gift);
                Ok(next)
            }
            None => Err(gift),
        }
    }

    /// Makes the next in line the owner, or ends the line. A gift that its owner left behind goes
    /// along; it comes back if the line is empty.
    fn pass(&self, key: &K, ticket: u64) -> Option<G> {
        let mut lines = lock(&self.lines);
        let line = lines.lines.get_mut(key)?;
        debug_assert_eq!(line.owner, ticket, "only the owner passes the turn on");
        if let Some(next) = line.call_next() {
            drop(lines);
            next.wake();
            return None;
        }
        let line = lines.lines.remove(key);
        self.tell_if_emptied(lines);
        line.and_then(|line| line.gift)
    }

    /// Makes the owner a reader, and the next in line the owner, to be woken by the caller outside the lock.
    fn read(&self, key: &K, ticket: u64, holder: H) -> Option<Waiter> {
        let mut lines = lock(&self.lines);
        let readers = lines.readers.entry(key.clone()).or_default();
        readers.insert(ticket, holder);
        let line = lines.lines.get_mut(key)?;
        debug_assert_eq!(line.owner, ticket, "only the owner passes the turn on");
        let next = line.call_next();
        if next.is_none() {
            lines.lines.remove(key);
        }
        next
    }

    /// A reader holds the lock no more.
    fn end_reading(&self, key: &K, ticket: u64) {
        let mut lines = lock(&self.lines);
        let Some(readers) = lines.readers.get_mut(key) else {
            return;
        };
        let holder = readers.remove(&ticket);
        if readers.is_empty() {
            lines.readers.remove(key);
        }
        self.tell_if_emptied(lines);
        // Outside the lock: it can be the last that knows of the hold.
        drop(holder);
    }

    fn tell_if_emptied(&self, lines: MutexGuard<'_, Lines<K, G, H>>) {
        let is_end = lines.closed && lines.is_empty();
        drop(lines);
        if is_end {
            self.emptied.notify_waiters();
        }
    }
}

impl<K: Key, G, H> Lines<K, G, H> {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.readers.is_empty()
    }

    fn readers_of(&self, key: &K) -> Vec<H>
    where
        H: Clone,
    {
        let readers = self.readers.get(key).into_iter();
        readers.flat_map(BTreeMap::values).cloned().collect()
    }
}
