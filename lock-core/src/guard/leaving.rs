//! A hold on its way out: its turn, until the next in line is called.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::seat::{Place, Seat};
use crate::backend::Granted;
use crate::lease::Lease;
use crate::provider::Shared;
use crate::queue::Stage;
use crate::{LockError, LockMode};

pub(super) type Answer = Pin<Box<dyn Future<Output = Result<(), LockError>> + Send>>;

/// Calls the next in line when it is dropped, be it that the release was answered or not.
pub(super) struct Leaving {
    pub(super) held: Granted,
    pub(super) seat: Option<Seat>,
}

/// What has become of a grant that the next in line may have.
pub(super) enum HandOver {
    Done,
    /// The next in line has left meanwhile, or the time is over: this has the grant.
    Undone(Granted),
    No,
}

impl Leaving {
    /// The hold is over for its holder and for a shutdown, and the turn stays: where it is asked in now, if it is.
    pub(super) fn stay(&mut self) -> Option<Arc<Shared>> {
        let hold = &self.held.hold;
        let seat = self.seat.as_mut()?;
        seat.close(|| hold.held_for(), hold.latch.get().is_some());
        // A reader is not kept: it closes the lock to no other reader.
        if let Place::Turn(turn) = &seat.place {
            turn.stage(Stage::Kept);
        }
        Some(Arc::clone(&seat.shared))
    }

    /// Releases the grant, once.
    pub(super) fn release(&self) -> Option<Answer> {
        self.held.slot().release()
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.held.hold.lease
    }

    /// Hands the lock over from a writer to the next in line, if that is a writer and the lock may stay in this
    /// process.
    pub(super) fn hand_over(&mut self) -> HandOver {
        let hold = &self.held.hold;
        let is_next = |place: &Place| match place {
            Place::Turn(turn) => turn.is_awaited_as(LockMode::Exclusive),
            Place::Reading(_) => false,
        };
        let Some(seat) = self.seat.as_mut().filter(|seat| is_next(&seat.place)) else {
            return HandOver::No;
        };
        let may_stay = || hold.lease.is_lasting() && !hold.is_tied();
        let Some(until) = (hold.cohort.open_until()).filter(|_| may_stay()) else {
            return HandOver::No;
        };
        let Some(mut next) = self.held.slot().hand_over(hold.next()) else {
            return HandOver::No;
        };
        let has_joined = Arc::get_mut(&mut next).is_some_and(|next| {
            let (cohort, queue) = (&mut next.hold.cohort, &seat.shared.queue);
            cohort.join(&hold.cohort, queue, &hold.name)
        });
        if !has_joined {
            return HandOver::Undone(next);
        }
        // Before the next holder is reported.
        seat.close(|| hold.held_for(), hold.latch.get().is_some());
        let Some(seat) = self.seat.take() else {
            return HandOver::Undone(next);
        };
        let Place::Turn(turn) = seat.place else {
            self.seat = Some(seat);
            return HandOver::Undone(next);
        };
        let cohort = next.hold.cohort.clone();
        match turn.hand_over(next, until) {
            Ok(()) => {
                cohort.take_back_if_late(&seat.shared.queue, &hold.name);
                HandOver::Done
            }
            Err((turn, next)) => {
                let place = Place::Turn(turn);
                self.seat = Some(Seat { place, ..seat });
                HandOver::Undone(next)
            }
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(mut seat) = self.seat.take() {
            let hold = &self.held.hold;
            seat.close(|| hold.held_for(), hold.latch.get().is_some());
        }
    }
}
