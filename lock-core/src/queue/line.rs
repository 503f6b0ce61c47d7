//! The line of one name.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::{LockMode, panics};

/// What the owner of a line is doing.
#[derive(Clone, Debug)]
pub(crate) enum Stage<H> {
    /// A command is, or is about to be, under way: whether the lock is free is not known.
    Asking,
    /// The backend said that another holds the lock.
    Waiting,
    /// The owner holds the lock.
    Holding(H),
    /// It was released, and is kept closed for some time.
    Kept,
}

impl<H: Clone> Stage<H> {
    pub(super) fn holder(&self) -> Option<H> {
        match self {
            Self::Holding(holder) => Some(holder.clone()),
            Self::Asking | Self::Waiting | Self::Kept => None,
        }
    }
}

/// Of a name: its owner, and who waits behind it.
pub(super) struct Line<G, H> {
    pub(super) owner: u64,
    /// How the owner would hold the lock, or does.
    pub(super) mode: LockMode,
    pub(super) stage: Stage<H>,
    /// A grant on its way to the owner.
    pub(super) gift: Option<G>,
    /// By ticket, so in order of arrival.
    pub(super) waiting: BTreeMap<u64, Waiter>,
    /// How many of them are impatient.
    pub(super) impatient: u32,
}

/// A ticket that is not called yet.
pub(super) struct Waiter {
    pub(super) waker: Option<Waker>,
    pub(super) mode: LockMode,
    /// Does not wait for the holder any more, only for the answer that is due.
    pub(super) impatient: bool,
}

impl<G, H> Line<G, H> {
    pub(super) fn owned_by(owner: u64, mode: LockMode) -> Self {
        Self {
            owner,
            mode,
            stage: Stage::Asking,
            gift: None,
            waiting: BTreeMap::new(),
            impatient: 0,
        }
    }

    /// Whether it is known that the owner does not get the lock now, or has it.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.stage, Stage::Asking)
    }

    /// How the next in line would hold the lock.
    pub(super) fn next_mode(&self) -> Option<LockMode> {
        let (_, waiter) = self.waiting.first_key_value()?;
        Some(waiter.mode)
    }

    fn pop_first(&mut self) -> Option<(u64, Waiter)> {
        let first = self.waiting.pop_first();
        self.impatient -= u32::from(first.as_ref().is_some_and(|(_, waiter)| waiter.impatient));
        first
    }

    /// Makes the next in line the owner, to be woken by the caller outside the lock.
    pub(super) fn call_next(&mut self) -> Option<Waiter> {
        let (ticket, waiter) = self.pop_first()?;
        self.owner = ticket;
        self.mode = waiter.mode;
        self.stage = Stage::Asking;
        Some(waiter)
    }

    /// The waiter is the caller's to drop, outside the lock: the drop of a waker can run anything.
    #[must_use]
    pub(super) fn remove(&mut self, ticket: u64) -> Option<Waiter> {
        let waiter = self.waiting.remove(&ticket);
        self.impatient -= u32::from(waiter.as_ref().is_some_and(|waiter| waiter.impatient));
        waiter
    }

    /// Takes those out of line who wait only for the answer that is now known: of all modes, or the writers.
    pub(super) fn refuse_impatient(&mut self, also_readers: bool) -> Vec<Waiter> {
        if self.impatient == 0 {
            return Vec::new();
        }
        let is_refused = |waiter: &mut Waiter| {
            waiter.impatient && (also_readers || waiter.mode == LockMode::Exclusive)
        };
        let refused = self.waiting.extract_if(.., |_, waiter| is_refused(waiter));
        let refused: Vec<_> = refused.map(|(_, waiter)| waiter).collect();
        // So many at most were counted.
        self.impatient -= u32::try_from(refused.len()).unwrap_or(self.impatient);
        refused
    }
}

impl Waiter {
    pub(super) fn wake(self) {
        if let Some(waker) = self.waker {
            panics::wake(waker);
        }
    }
}
