//! The end of a hold: released, handed over to the next in line, or taken away.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until, timeout};

use super::overtime;
use super::seat::Seat;
use crate::backend::{Granted, Held};
use crate::lease::LossReason;
use crate::provider::Closing;
use crate::queue::Stage;
use crate::{LockError, observe};

/// How long the work of a lock that was taken away has to stop by itself, before the lock is
/// unlocked under it. It is not valid any more from the start of this time.
pub(crate) const STOPPING: Duration = Duration::from_millis(100);

impl Held {
    /// Releases in the background, if that has not begun. The next in line is called when
    /// the release was answered, or immediately where no runtime is current.
    pub(crate) fn finish(self: &Arc<Self>) {
        let Some(seat) = self.hold.take_seat() else {
            return;
        };
        let Ok(releasing) = self.leave(seat) else {
            return;
        };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = releasing.answer().await
                    && !error.is_lost()
                {
                    observe::release_failed(&error);
                }
            });
        }
    }

    /// Starts the release; `Err` is one that is over already, with how it ended.
    pub(super) fn start_release(self: &Arc<Self>) -> Result<Releasing, Result<(), LockError>> {
        match self.hold.take_seat() {
            Some(seat) => self.leave(seat),
            // Taken away by `forfeit`.
            None => Err(self.check()),
        }
    }

    fn leave(self: &Arc<Self>, seat: Seat) -> Result<Releasing, Result<(), LockError>> {
        let mut valid = self.check();
        if valid.is_ok() {
            // From here on a loss does not count, but for one that the release itself finds.
            self.hold.over.store(true, Ordering::Release);
        }
        let mut leaving = Leaving {
            held: Arc::clone(self),
            seat: Some(seat),
        };
        // What has the grant, if this has it no more.
        let mut next = None;
        if let Some(until) = self.hold.kept_until().filter(|_| valid.is_ok()) {
            // The store keeps it once it is released, or we keep the grant: neither is handed over.
            if !self.slot().keep() {
                leaving.keep(until);
                return Err(Ok(()));
            }
        } else if valid.is_ok() {
            match leaving.hand_over() {
                HandOver::Done => return Err(Ok(())),
                HandOver::Undone(undone) => next = Some(undone),
                HandOver::No => {}
            }
        }
        if let Some(answer) = next.as_ref().unwrap_or(self).slot().release() {
            return Ok(Releasing {
                answer,
                leaving,
                valid,
            });
        }
        if valid.is_ok()
            && let Some(reason) = self.hold.lease.reason()
        {
            self.lose(reason);
            valid = Err(self.lost_error(reason.to_string()));
        }
        Err(valid)
    }

    fn is_over_or_lost(&self) -> bool {
        self.hold.is_over() || self.loss().is_some()
    }

    /// Declares the lock lost, gives its work a moment to stop, and unlocks it.
    pub(crate) async fn forfeit(self: &Arc<Self>, reason: LossReason) {
        // A release that is under way is no loss.
        if !self.is_over_or_lost() {
            self.lose(reason);
        }
        let mut left = pin!(self.hold.left.notified());
        left.as_mut().enable();
        if self.hold.seat().is_some() {
            // Elapsed or not, what follows ends it.
            let _ = timeout(STOPPING, left).await;
        }
        if let Ok(releasing) = self.start_release() {
            // The loss has been reported.
            let _ = releasing.answer().await;
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<(), LockError>> + Send>>;

/// A release that the backend has not answered yet.
pub(super) struct Releasing {
    answer: Answer,
    leaving: Leaving,
    valid: Result<(), LockError>,
}

impl Releasing {
    /// Waits for the backend's answer as long as an exchange may take. Boxed, so that futures which
    /// hold a guard and release it stay small.
    pub(super) fn answer(self) -> Answer {
        Box::pin(async move {
            let Self {
                answer,
                leaving,
                valid,
            } = self;
            let asked = std::time::Instant::now();
            let bound = (leaving.seat.as_ref()).map(|seat| seat.shared.response_timeout);
            let bound = bound.unwrap_or_default();
            let answer = (timeout(bound, answer).await)
                .unwrap_or_else(|_| Err(LockError::release_unanswered_since(asked, bound)));
            // The work under the lock is done.
            valid.and(answer).map_err(|error| {
                let name = &leaving.held.hold.name;
                error.with_lock(name).with_outcome_unknown()
            })
        })
    }
}

/// Calls the next in line when it is dropped, be it that the release was answered or not.
struct Leaving {
    held: Granted,
    seat: Option<Seat>,
}

enum HandOver {
    Done,
    /// The next in line has left meanwhile, or the time is over: this has the grant.
    Undone(Granted),
    No,
}

impl Leaving {
    /// Hands the lock over to the next in line, if there is one and the lock may stay in this process.
    fn hand_over(&mut self) -> HandOver {
        let hold = &self.held.hold;
        let Some(seat) = self.seat.as_mut().filter(|seat| seat.turn.is_awaited()) else {
            return HandOver::No;
        };
        let Some(until) = (hold.cohort.open_until()).filter(|_| hold.lease.is_lasting()) else {
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
        let cohort = next.hold.cohort.clone();
        match seat.turn.hand_over(next, until) {
            Ok(()) => {
                cohort.take_back_if_late(&seat.shared.queue, &hold.name);
                HandOver::Done
            }
            Err((turn, next)) => {
                self.seat = Some(Seat { turn, ..seat });
                HandOver::Undone(next)
            }
        }
    }

    /// Keeps the grant until then, without a holder: the store has no clock for that. The next in line is
    /// called after its release, as after any other.
    fn keep(mut self, until: Instant) {
        let hold = &self.held.hold;
        let Some(seat) = &mut self.seat else { return };
        // The hold is over for its holder, and for the shutdown.
        seat.close(|| hold.held_for(), hold.latch.get().is_some());
        seat.turn.stage(Stage::Kept);
        let shared = Arc::clone(&seat.shared);
        let kept = Kept(self);
        let Ok(runtime) = Handle::try_current() else {
            return overtime::after(until.into_std(), move || drop(kept));
        };
        runtime.spawn(async move {
            tokio::select! {
                () = sleep_until(until) => {}
                () = Closing::of(&shared) => {}
            }
            if let Some(answer) = kept.release() {
                // Unanswered, it goes on by itself.
                let _ = timeout(shared.response_timeout, answer).await;
            }
        });
    }
}

/// A grant that is kept after its hold. Dropped, which the end of its runtime does as well, it is released,
/// and then the next in line is called.
struct Kept(Leaving);

impl Kept {
    fn release(&self) -> Option<Answer> {
        self.0.held.slot().release()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.release());
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
