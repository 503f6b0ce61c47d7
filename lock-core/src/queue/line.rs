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

/// Of a name: its owner, who waits behind it, and who reads.
pub(super) struct Line<G, H> {
    /// None while only readers hold the lock: then none waits.
    pub(super) owner: Option<Owner<H>>,
    /// A grant on its way to the owner.
    pub(super) gift: Option<G>,
    /// Who holds the lock without the turn, by ticket, so the first since longest.
    pub(super) readers: BTreeMap<u64, H>,
    /// By ticket, so in order of arrival.
    pub(super) waiting: BTreeMap<u64, Waiter>,
    /// How many of them are impatient.
    pub(super) impatient: usize,
}

/// Who has the turn.
pub(super) struct Owner<H> {
    pub(super) ticket: u64,
    pub(super) mode: LockMode,
    pub(super) stage: Stage<H>,
}

/// A ticket that is not called yet.
pub(super) struct Waiter {
    pub(super) waker: Option<Waker>,
    pub(super) mode: LockMode,
    /// Does not wait for the holder any more, only for the answer that is due.
    pub(super) impatient: bool,
}

impl<H> Owner<H> {
    pub(super) fn new(ticket: u64, mode: LockMode) -> Self {
        Self {
            ticket,
            mode,
            stage: Stage::Asking,
        }
    }
}

impl<G, H> Line<G, H> {
    pub(super) fn owned_by(owner: Owner<H>) -> Self {
        Self {
            owner: Some(owner),
            gift: None,
            readers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            impatient: 0,
        }
    }

    /// Whether this is the ticket of the owner.
    pub(super) fn is_owned_by(&self, ticket: u64) -> bool {
        let owner = self.owner.as_ref();
        owner.is_some_and(|owner| owner.ticket == ticket)
    }

    /// Whether it is known that the owner does not get the lock now, or has it.
    pub(super) fn is_known(&self) -> bool {
        let owner = self.owner.as_ref();
        owner.is_some_and(|owner| !matches!(owner.stage, Stage::Asking))
    }

    /// How the next in line would hold the lock.
    pub(super) fn next_mode(&self) -> Option<LockMode> {
        let (_, waiter) = self.waiting.first_key_value()?;
        Some(waiter.mode)
    }

    /// Whether no caller has the turn or holds the lock.
    pub(super) fn is_over(&self) -> bool {
        self.owner.is_none() && self.readers.is_empty()
    }

    fn pop_first(&mut self) -> Option<(u64, Waiter)> {
        let first = self.waiting.pop_first();
        self.impatient -= usize::from(first.as_ref().is_some_and(|(_, waiter)| waiter.impatient));
        first
    }

    /// Makes the next in line the owner, to be woken by the caller outside the lock.
    pub(super) fn call_next(&mut self) -> Option<Waiter> {
        let (ticket, waiter) = self.pop_first()?;
        self.owner = Some(Owner::new(ticket, waiter.mode));
        Some(waiter)
    }

    /// The waiter is the caller's to drop, outside the lock: the drop of a waker can run anything.
    #[must_use]
    pub(super) fn remove(&mut self, ticket: u64) -> Option<Waiter> {
        let waiter = self.waiting.remove(&ticket);
        self.impatient -= usize::from(waiter.as_ref().is_some_and(|waiter| waiter.impatient));
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
        self.impatient -= refused.len();
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
