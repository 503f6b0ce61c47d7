//! The in-process queue: one line per name, first come, first served.
//!
//! The first in the line of a name has the *turn*: it alone may ask the backend for the
//! lock, and it keeps the turn while it holds the lock. A thousand tasks that wait for one name are
//! one waiter for the backend.
//!
//! # Why at most one has the turn of a name
//!
//! A line has one `owner`, a ticket that is never used twice. It is set when the line begins, and
//! changed only by [`Turn::pass`], which consumes the one [`Turn`] of the present owner. A ticket
//! becomes a turn only while it is the owner, and by that it is used up: [`Ticket`] gives up its
//! claim when it answers. A ticket that is dropped before it saw that it had become the owner passes
//! the turn on. All of it happens under one lock.
//!
//! # Grants that are handed on
//!
//! A grant is in the line, for its owner, only from [`Turn::hand_on`] or [`Turn::hand_over`] until the
//! owner takes it with the turn, leaves it to the next, or [`Queue::recall`] takes it: it is received or
//! comes back, once.

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
pub(crate) use self::turn::Turn;
use crate::sync::{Mutex, lock};

/// The lines of all names. `G` is a grant that is handed on, `H` what identifies a holder.
pub(crate) struct Queue<K, G, H> {
    lines: Mutex<Lines<K, G, H>>,
    /// Told when the last line of a closed queue has ended.
    emptied: Notify,
}

struct Lines<K, G, H> {
    lines: HashMap<K, Line<G, H>>,
    last_ticket: u64,
    closed: bool,
}

/// The answer to [`Queue::enter`].
pub(crate) enum Entry<K: Key, G, H> {
    /// The line was empty.
    Turn(Turn<K, G, H>),
    /// Others are before us; and who holds the lock, if a task here does.
    Ticket(Ticket<K, G, H>, Option<H>),
    /// Others are before us, the lock is known to be held, and we would not wait; and who holds it,
    /// if a task here does.
    Refused(Option<H>),
    /// The queue is closed.
    Closed,
}

/// What lines are named by.
pub(crate) trait Key: Clone + Eq + Hash + Unpin {}
impl<K: Clone + Eq + Hash + Unpin> Key for K {}

impl<K: Key, G, H: Clone> Queue<K, G, H> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            lines: Mutex::new(Lines {
                lines: HashMap::new(),
                last_ticket: 0,
                closed: false,
            }),
            emptied: Notify::new(),
        })
    }

    /// Gets in line. A caller that is `impatient` leaves as soon as it is known that the lock is held.
    pub(crate) fn enter(self: &Arc<Self>, key: &K, impatient: bool) -> Entry<K, G, H> {
        let mut lines = lock(&self.lines);
        if lines.closed {
            return Entry::Closed;
        }
        lines.last_ticket += 1;
        let ticket = lines.last_ticket;
        let Some(line) = lines.lines.get_mut(key) else {
            lines.lines.insert(key.clone(), Line::owned_by(ticket));
            return Entry::Turn(self.turn(key, ticket));
        };
        if impatient && !matches!(line.stage, Stage::Asking) {
            return Entry::Refused(line.stage.holder());
        }
        line.impatient += usize::from(impatient);
        let waker = None;
        line.waiting.insert(ticket, Waiter { waker, impatient });
        let holder = line.stage.holder();
        let ticket = Ticket {
            queue: Arc::clone(self),
            key: key.clone(),
            ticket: Some(ticket),
        };
        Entry::Ticket(ticket, holder)
    }

    /// The turn of this name, if the line is empty; else who holds the lock, if a task here does.
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
        lines.lines.insert(key.clone(), Line::owned_by(ticket));
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

    /// Completes when no caller has a turn any more, in a queue that is closed.
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
        lock(&self.lines).lines.is_empty()
    }

    /// Takes a grant back that its owner has not taken, if it is due. The owner asks for itself then.
    pub(crate) fn recall(&self, key: &K, is_due: impl FnOnce(&G) -> bool) -> Option<G> {
        let mut lines = lock(&self.lines);
        lines.lines.get_mut(key)?.gift.take_if(|gift| is_due(gift))
    }

    /// Who holds a lock.
    pub(crate) fn holders(&self) -> Vec<H> {
        (lock(&self.lines).lines.values())
            .filter_map(|line| line.stage.holder())
            .collect()
    }

    /// Each line: its name, what its owner does, and how many wait behind it. Copies: what a caller does with
    /// a holder can end its hold, which takes the lock of the lines.
    pub(crate) fn lines(&self) -> Vec<(K, Stage<H>, usize)> {
        let lines = lock(&self.lines);
        let lines = lines.lines.iter();
        lines
            .map(|(key, line)| (key.clone(), line.stage.clone(), line.waiting.len()))
            .collect()
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
        let is_end = lines.closed && lines.lines.is_empty();
        drop(lines);
        if is_end {
            self.emptied.notify_waiters();
        }
        line.and_then(|line| line.gift)
    }
}
