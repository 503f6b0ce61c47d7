//! The end of a hold: released, handed over to the next in line, or taken away.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use super::kept;
use super::leaving::{Answer, HandOver, Leaving};
use super::seat::Seat;
use crate::backend::Held;
use crate::lease::LossReason;
use crate::{LockError, observe};

/// How long the work of a lock that was taken away has to stop by itself, before the lock is
/// unlocked under it. It is not valid any more from the start of this time.
pub(crate) const STOPPING: Duration = Duration::from_millis(100);

impl Held {
    /// Releases in the background, if that has not begun. The next in line is called when
    /// the release was answered, or immediately where no runtime is current.
    pub(crate) fn finish(self: &Arc<Self>) {
        self.finish_until(self.hold.kept_until());
    }

    /// The same for a hold that no caller has seen: it is not kept.
    pub(crate) fn give_back(self: &Arc<Self>) {
        self.finish_until(None);
    }

    fn finish_until(self: &Arc<Self>, kept_until: Option<Instant>) {
        let Some(seat) = self.hold.take_seat() else {
            return;
        };
        let Ok(releasing) = self.leave(seat, kept_until) else {
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
            Some(seat) => self.leave(seat, self.hold.kept_until()),
            // Taken away by `forfeit`.
            None => Err(self.check()),
        }
    }

    fn leave(
        self: &Arc<Self>,
        seat: Seat,
        kept_until: Option<Instant>,
    ) -> Result<Releasing, Result<(), LockError>> {
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
        if let Some(until) = kept_until.filter(|_| valid.is_ok()) {
            // The store keeps it once it is released, or we keep the grant: neither is handed over.
            if !self.slot().keep() {
                kept::keep(leaving, until);
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
