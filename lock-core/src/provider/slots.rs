//! What is known of the slots of a lock with permits.

use std::future::Future;
use std::mem;
use std::pin::Pin;

use backon::ExponentialBackoff;
use tokio::time::Instant;

use super::lines::{Ticket, Turn};
use crate::LockError;
use crate::backend::{Attempt, Granted};
use crate::name::LockName;

/// One slot is asked for first: mostly it is free, and a question for one costs no more than one for a lock.
/// So many are asked for in the second question, the others in a third: few have more, and of many most are free.
const TOGETHER: usize = 8;

/// A question to the store, with its turn; what is granted to one that is dropped goes on or back.
pub(super) type Asked =
    Pin<Box<dyn Future<Output = (Turn, Result<Attempt<Granted>, LockError>)> + Send>>;
pub(super) type Changed = Pin<Box<dyn Future<Output = ()> + Send>>;
pub(super) type Released = Pin<Box<dyn Future<Output = Result<(), LockError>> + Send>>;

/// The slots of one lock that were looked at, in an order of chance, and what is under way for each.
pub(super) struct Seeking {
    pub(super) lock: LockName,
    pub(super) permits: usize,
    /// The number of the first slot, from 0.
    pub(super) first: usize,
    pub(super) slots: Vec<Slot>,
    /// Why the last question had no answer, in the time of this seeker.
    pub(super) error: Option<LockError>,
    /// Between tries of a store that does not answer, and the end of the present pause.
    pub(super) delays: Option<ExponentialBackoff>,
    pub(super) failed_until: Option<Instant>,
    /// Whether the line knows that all slots are held.
    pub(super) line_knows: bool,
}

pub(super) struct Slot {
    pub(super) name: LockName,
    pub(super) state: State,
}

#[derive(Default)]
pub(super) enum State {
    /// We have no place in its line.
    #[default]
    Away,
    /// It is held or asked for in this process.
    InLine(Ticket),
    /// What we were handed does not serve: it goes back before we ask, or we would meet ourselves.
    GivingBack(Turn, Released),
    /// Ours to ask for; whether it was held when that was last known.
    Free(Turn, bool),
    /// With a registration, if the caller waits.
    Asking(Asked, Option<Changed>),
    /// Another process holds it, or it is not known who does.
    Waiting {
        turn: Turn,
        /// None by a caller whose wait was over.
        changed: Option<Changed>,
        retry_at: Option<Instant>,
        is_held: bool,
    },
    /// It is held, and we do not wait.
    Refused,
}

impl Seeking {
    /// Nothing is known of so many slots.
    pub(super) fn new(lock: &LockName, permits: usize) -> Self {
        let mut seeking = Self {
            lock: lock.clone(),
            permits,
            first: fastrand::usize(..permits),
            slots: Vec::new(),
            error: None,
            delays: None,
            failed_until: None,
            line_knows: false,
        };
        seeking.add(1);
        seeking
    }

    fn add(&mut self, until: usize) {
        for number in self.slots.len()..until {
            let number = 1 + (self.first + number) % self.permits;
            self.slots.push(Slot {
                name: self.lock.slot(number),
                state: State::Away,
            });
        }
    }

    /// False if there are no more.
    ///
    /// The first slot is asked for again together with others: it can have been freed since, and one of these
    /// acquired instead.
    pub(super) fn look_at_more(&mut self) -> bool {
        let known = self.slots.len();
        let is_second = known == 1;
        self.add(if is_second {
            TOGETHER.min(self.permits)
        } else {
            self.permits
        });
        let are_more = self.slots.len() > known;
        if is_second
            && are_more
            && let State::Free(_, is_held) = &mut self.slots[0].state
        {
            *is_held = false;
        }
        are_more
    }

    /// Another seeker goes on, under a policy of its own: it takes over no try, and gets in line where the one before
    /// would not wait, and asks again where that one has not registered: a release since then is not known.
    pub(super) fn begin(&mut self) {
        self.error = None;
        self.line_knows = false;
        for slot in &mut self.slots {
            slot.state = match mem::take(&mut slot.state) {
                State::Asking(..) | State::Refused => State::Away,
                State::Waiting {
                    turn,
                    changed: None,
                    ..
                } => State::Free(turn, false),
                other => other,
            };
        }
    }

    /// Takes the turns of the slots that can be asked for, and of which nothing is known.
    pub(super) fn take_free(&mut self) -> (Vec<LockName>, Vec<Turn>) {
        let free = self.slots.iter_mut().filter_map(|slot| {
            match mem::take(&mut slot.state) {
                State::Free(turn, false) => return Some((slot.name.clone(), turn)),
                other => slot.state = other,
            }
            None
        });
        free.unzip()
    }

    /// Puts the turn of a slot back that was asked for and not granted.
    pub(super) fn put_back(&mut self, name: &LockName, turn: Turn, is_held: bool) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.name == *name) {
            slot.state = State::Free(turn, is_held);
        }
    }

    /// Why it is not known whether a slot is free.
    pub(super) fn unanswered(&mut self) -> LockError {
        self.error.take().unwrap_or_else(LockError::unanswered)
    }

    /// When a slot is asked for again although nothing was heard of it.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        let times = self.slots.iter().filter_map(|slot| match &slot.state {
            State::Waiting { retry_at, .. } => *retry_at,
            _ => None,
        });
        times.min()
    }
}

impl Slot {
    /// Whether it is known to be held.
    pub(super) fn is_held(&self) -> bool {
        match &self.state {
            State::InLine(ticket) => ticket.is_held(),
            State::Free(_, is_held) | State::Waiting { is_held, .. } => *is_held,
            State::Refused => true,
            State::Away | State::GivingBack(..) | State::Asking(..) => false,
        }
    }

    /// Whether an answer is due.
    pub(super) fn is_asked(&self) -> bool {
        match &self.state {
            State::InLine(ticket) => !ticket.is_held(),
            State::GivingBack(..) | State::Asking(..) => true,
            _ => false,
        }
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use super::*;

    #[test]
    fn the_next_seeker_gets_in_line_where_one_that_did_not_wait_was_refused() {
        let mut seeking = Seeking::new(&"export:run:7".parse().unwrap(), 2);
        seeking.slots[0].state = State::Refused;
        seeking.begin();
        assert!(matches!(seeking.slots[0].state, State::Away));
    }
}
