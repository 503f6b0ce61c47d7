//! The turn of a name.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::line::{Line, Stage, Waiter};
use super::{Key, Queue};
use crate::LockMode;
use crate::sync::lock;

/// Those who were taken out of line, to be woken.
#[must_use = "those who wait are to be woken"]
pub(crate) struct Refused(Vec<Waiter>);

impl Refused {
    pub(crate) fn wake(self) {
        self.0.into_iter().for_each(Waiter::wake);
    }
}

/// The next in line, who has the turn now, to be woken.
#[must_use = "the next in line is to be woken"]
pub(crate) struct Next(Option<Waiter>);

impl Next {
    pub(crate) fn wake(self) {
        if let Some(waiter) = self.0 {
            waiter.wake();
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
    /// That of the owner of the line, whose ticket is used up by this.
    pub(super) fn of_owner(queue: Arc<Queue<K, G, H>>, key: K, ticket: u64) -> Self {
        Self {
            queue,
            key,
            ticket,
            passed: false,
        }
    }

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
        line.stage = stage;
        let refused = if line.is_known() {
            line.refuse_impatient(true)
        } else {
            Vec::new()
        };
        (!line.waiting.is_empty(), Refused(refused))
    }

    /// The backend refused the owner, which does not wait: those who do not wait either would be refused as
    /// well. Readers that are behind a writer would not, for all that is known: they ask for themselves.
    pub(crate) fn refuse_impatient(&self) {
        let mut lines = lock(&self.queue.lines);
        let Some(line) = lines.lines.get_mut(&self.key) else {
            return;
        };
        let also_readers = line.mode == LockMode::Shared;
        let refused = Refused(line.refuse_impatient(also_readers));
        drop(lines);
        refused.wake();
    }

    /// The owner was granted the lock as a reader: the turn goes to the next in line, to be woken by a caller
    /// with a lock of its own outside of it.
    pub(crate) fn read(mut self, holder: H) -> (Reading<K, G, H>, Next) {
        self.passed = true;
        let next = self.queue.read(&self.key, self.ticket, holder);
        let reading = Reading {
            queue: Arc::clone(&self.queue),
            key: self.key.clone(),
            ticket: self.ticket,
        };
        (reading, Next(next))
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

    /// Whether the next in line would hold the lock so.
    pub(crate) fn is_awaited_as(&self, mode: LockMode) -> bool {
        let lines = lock(&self.queue.lines);
        let line = lines.lines.get(&self.key);
        line.and_then(Line::next_mode) == Some(mode)
    }

    /// Who reads meanwhile.
    pub(crate) fn readers(&self) -> Vec<H>
    where
        H: Clone,
    {
        self.queue.readers(&self.key)
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

/// A reader that holds the lock and has passed the turn on. Dropping it forgets the reader.
#[must_use = "a reader that is dropped is forgotten"]
pub(crate) struct Reading<K: Key, G, H> {
    queue: Arc<Queue<K, G, H>>,
    key: K,
    ticket: u64,
}

impl<K: Key, G, H> Drop for Reading<K, G, H> {
    fn drop(&mut self) {
        self.queue.end_reading(&self.key, self.ticket);
    }
}
