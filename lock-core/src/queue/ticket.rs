//! Places in line.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::line::Line;
use super::turn::Turn;
use super::{Key, Queue};
use crate::LockMode;
use crate::sync::lock;

/// How waiting in line ended.
pub(crate) enum Called<K: Key, G, H> {
    /// It is our turn, perhaps with a grant that the others did not want.
    Turn(Turn<K, G, H>, Option<G>),
    /// The lock is held, and we would not wait any longer.
    Refused,
    /// The queue was closed.
    Closed,
}

/// A place in line; a future that ends when the wait in line does. Dropping it leaves the line.
#[must_use = "a ticket that is dropped leaves the line"]
pub(crate) struct Ticket<K: Key, G, H> {
    pub(super) queue: Arc<Queue<K, G, H>>,
    pub(super) key: K,
    /// `None` once it has answered: it has no claim any more.
    pub(super) ticket: Option<u64>,
}

impl<K: Key, G, H> Ticket<K, G, H> {
    /// Whether it is known that the lock is held.
    pub(crate) fn is_held(&self) -> bool {
        let lines = lock(&self.queue.lines);
        let line = lines.lines.get(&self.key);
        line.is_some_and(Line::is_known)
    }

    /// Who reads, and is waited for by this ticket: it is a writer's, or behind one that has the turn.
    pub(crate) fn awaited_readers(&self) -> Vec<H>
    where
        H: Clone,
    {
        let lines = lock(&self.queue.lines);
        let line = lines.lines.get(&self.key);
        let is_awaiting = line.zip(self.ticket).is_some_and(|(line, ticket)| {
            let own = line.waiting.get(&ticket).map(|waiter| waiter.mode);
            [own, Some(line.mode)].contains(&Some(LockMode::Exclusive))
        });
        match is_awaiting {
            true => lines.readers_of(&self.key),
            false => Vec::new(),
        }
    }

    /// Waits no longer than until it is known whether the lock is held.
    pub(crate) fn hurry(&self) {
        let Some(ticket) = self.ticket else { return };
        let mut lines = lock(&self.queue.lines);
        let Some(line) = lines.lines.get_mut(&self.key) else {
            return;
        };
        if line.is_known() {
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
                let turn = Turn::of_owner(queue, key, ticket);
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
