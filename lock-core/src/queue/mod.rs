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

#[cfg(all(test, lock_model))]
mod models;
#[cfg(all(test, not(lock_model)))]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::panics;
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

struct Line<G, H> {
    owner: u64,
    stage: Stage<H>,
    /// A grant on its way to the owner.
    gift: Option<G>,
    /// By ticket, so in order of arrival.
    waiting: BTreeMap<u64, Waiter>,
    /// How many of them are impatient.
    impatient: usize,
}

struct Waiter {
    waker: Option<Waker>,
    /// Does not wait for the holder any more, only for the answer that is due.
    impatient: bool,
}

/// What the owner of a line is doing.
#[derive(Clone, Debug)]
pub(crate) enum Stage<H> {
    /// A command is, or is about to be, under way: whether the lock is free is not known.
    Asking,
    /// The backend said that another holds the lock.
    Waiting,
    /// The owner holds the lock.
    Holding(H),
}

impl<H: Clone> Stage<H> {
    fn holder(&self) -> Option<H> {
        match self {
            Self::Holding(holder) => Some(holder.clone()),
            Self::Asking | Self::Waiting => None,
        }
    }
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

/// How waiting in line ended.
pub(crate) enum Called<K: Key, G, H> {
    /// It is our turn, perhaps with a grant that the others did not want.
    Turn(Turn<K, G, H>, Option<G>),
    /// The lock is held, and we would not wait any longer.
    Refused,
    /// The queue was closed.
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

    fn turn(self: &Arc<Self>, key: &K, ticket: u64) -> Turn<K, G, H> {
        Turn {
            queue: Arc::clone(self),
            key: key.clone(),
            ticket,
            passed: false,
        }
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

impl<G, H> Line<G, H> {
    fn owned_by(owner: u64) -> Self {
        Self {
            owner,
            stage: Stage::Asking,
            gift: None,
            waiting: BTreeMap::new(),
            impatient: 0,
        }
    }

    fn pop_first(&mut self) -> Option<(u64, Waiter)> {
        let first = self.waiting.pop_first();
        self.impatient -= usize::from(first.as_ref().is_some_and(|(_, waiter)| waiter.impatient));
        first
    }

    /// Makes the next in line the owner, to be woken by the caller outside the lock.
    fn call_next(&mut self) -> Option<Waiter> {
        let (ticket, waiter) = self.pop_first()?;
        self.owner = ticket;
        self.stage = Stage::Asking;
        Some(waiter)
    }

    /// The waiter is the caller's to drop, outside the lock: the drop of a waker can run anything.
    #[must_use]
    fn remove(&mut self, ticket: u64) -> Option<Waiter> {
        let waiter = self.waiting.remove(&ticket);
        self.impatient -= usize::from(waiter.as_ref().is_some_and(|waiter| waiter.impatient));
        waiter
    }

    /// Takes those out of line who wait only for the answer that is now known.
    fn refuse_impatient(&mut self) -> Vec<Waiter> {
        if mem::take(&mut self.impatient) == 0 {
            return Vec::new();
        }
        (self.waiting.extract_if(.., |_, waiter| waiter.impatient))
            .map(|(_, waiter)| waiter)
            .collect()
    }
}

impl Waiter {
    fn wake(self) {
        if let Some(waker) = self.waker {
            panics::wake(waker);
        }
    }
}

/// Those who were taken out of line, to be woken.
#[must_use = "those who wait are to be woken"]
pub(crate) struct Refused(Vec<Waiter>);

impl Refused {
    pub(crate) fn wake(self) {
        self.0.into_iter().for_each(Waiter::wake);
    }
}

/// A place in line; a future that ends when the wait in line does. Dropping it leaves the line.
#[must_use = "a ticket that is dropped leaves the line"]
pub(crate) struct Ticket<K: Key, G, H> {
    queue: Arc<Queue<K, G, H>>,
    key: K,
    /// `None` once it has answered: it has no claim any more.
    ticket: Option<u64>,
}

impl<K: Key, G, H> Ticket<K, G, H> {
    /// Waits no longer than until it is known whether the lock is held.
    pub(crate) fn hurry(&self) {
        let Some(ticket) = self.ticket else { return };
        let mut lines = lock(&self.queue.lines);
        let Some(line) = lines.lines.get_mut(&self.key) else {
            return;
        };
        if !matches!(line.stage, Stage::Asking) {
            let left = line.remove(ticket);
            drop(lines);
            drop(left);
        } else if let Some(waiter) = line.waiting.get_mut(&ticket)
            && !mem::replace(&mut waiter.impatient, true)
        {
            line.impatient += 1;
        }
    }
}

impl<K: Key, G, H> Future for Ticket<K, G, H> {
    type Output = Called<K, G, H>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(ticket) = this.ticket else {
            return Poll::Ready(Called::Closed);
        };
        let mut lines = lock(&this.queue.lines);
        let closed = lines.closed;
        if let Some(line) = lines.lines.get_mut(&this.key) {
            if line.owner == ticket {
                let gift = line.gift.take();
                drop(lines);
                this.ticket = None;
                let (queue, key) = (Arc::clone(&this.queue), this.key.clone());
                let passed = false;
                let turn = Turn {
                    queue,
                    key,
                    ticket,
                    passed,
                };
                return Poll::Ready(Called::Turn(turn, gift));
            }
            if let Some(waiter) = line.waiting.get_mut(&ticket) {
                let known = (waiter.waker.as_ref()).is_some_and(|w| w.will_wake(cx.waker()));
                let old = (!known).then(|| waiter.waker.replace(cx.waker().clone()));
                drop(lines);
                drop(old);
                return Poll::Pending;
            }
        }
        // Taken out of line by another task.
        drop(lines);
        this.ticket = None;
        Poll::Ready(if closed {
            Called::Closed
        } else {
            Called::Refused
        })
    }
}

impl<K: Key, G, H> Drop for Ticket<K, G, H> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut lines = lock(&self.queue.lines);
        let Some(line) = lines.lines.get_mut(&self.key) else {
            return;
        };
        if line.owner == ticket {
            drop(lines);
            // A gift that is not wanted is dropped here, outside the lock, which releases it.
            drop(self.queue.pass(&self.key, ticket));
        } else {
            let left = line.remove(ticket);
            drop(lines);
            drop(left);
        }
    }
}

/// The right to ask the backend for a name and to hold its lock. Dropping it calls the next.
#[must_use = "a turn that is dropped goes to the next in line"]
pub(crate) struct Turn<K: Key, G, H> {
    queue: Arc<Queue<K, G, H>>,
    key: K,
    ticket: u64,
    passed: bool,
}

impl<K: Key, G, H> Turn<K, G, H> {
    /// Says what the owner does now. Tells whether others wait in line.
    pub(crate) fn stage(&self, stage: Stage<H>) -> bool {
        let (is_awaited, refused) = self.stage_unwoken(stage);
        refused.wake();
        is_awaited
    }

    /// The same for a caller with a lock of its own, who wakes those that are refused outside of it: a waker
    /// may run what it likes.
    pub(crate) fn stage_unwoken(&self, stage: Stage<H>) -> (bool, Refused) {
        let mut lines = lock(&self.queue.lines);
        let Some(line) = lines.lines.get_mut(&self.key) else {
            return (false, Refused(Vec::new()));
        };
        let is_known = !matches!(stage, Stage::Asking);
        line.stage = stage;
        let refused = if is_known {
            line.refuse_impatient()
        } else {
            Vec::new()
        };
        (!line.waiting.is_empty(), Refused(refused))
    }

    pub(crate) fn queue(&self) -> &Arc<Queue<K, G, H>> {
        &self.queue
    }

    /// Whether others wait in line.
    pub(crate) fn is_awaited(&self) -> bool {
        let lines = lock(&self.queue.lines);
        let line = lines.lines.get(&self.key);
        line.is_some_and(|line| !line.waiting.is_empty())
    }

    /// Hands a grant to the next in line, with the turn. Both come back if the line is empty.
    pub(crate) fn hand_on(self, gift: G) -> Result<(), (Self, G)> {
        self.give(gift, || true)
    }

    /// The same, until then. A [`recall`](Queue::recall) from then on misses nothing that is handed over:
    /// both look at the clock under the lock of the lines.
    pub(crate) fn hand_over(self, gift: G, until: Instant) -> Result<(), (Self, G)> {
        self.give(gift, || Instant::now() < until)
    }

    fn give(mut self, gift: G, in_time: impl FnOnce() -> bool) -> Result<(), (Self, G)> {
        match self.queue.hand_on(&self.key, gift, in_time) {
            Ok(next) => {
                self.passed = true;
                next.wake();
                Ok(())
            }
            Err(gift) => Err((self, gift)),
        }
    }
}

impl<K: Key, G, H> Drop for Turn<K, G, H> {
    fn drop(&mut self) {
        if !self.passed {
            drop(self.queue.pass(&self.key, self.ticket));
        }
    }
}

impl<K: Key, G, H> fmt::Debug for Turn<K, G, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}
