//! What the library keeps about a lock while it is held, whoever looks at it.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OnceCell};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::backend::{Granted, Held};
use crate::lease::{Latch, Lease, LossReason};
use crate::observe::{HoldOutcome, Keys};
use crate::provider::{Shared, Turn};
use crate::queue::Stage;
use crate::{FencingToken, LockError, LockName, LockPolicy};

/// How long the work of a lock that was taken away has to stop by itself, before the lock is
/// unlocked under it. It is not valid any more from the start of this time.
const STOPPING: Duration = Duration::from_millis(100);

pub(crate) struct Hold {
    pub(crate) name: LockName,
    pub(crate) lease: Lease,
    /// Losses that are this hold's alone; the lease can be shared.
    pub(crate) latch: Latch,
    pub(crate) since: Instant,
    /// The end of `max_hold`.
    pub(crate) until: Option<Instant>,
    token: OnceCell<FencingToken>,
    /// Whether the holder has given the lock back: then a loss is no loss.
    over: AtomicBool,
    loss_seen: AtomicBool,
    /// Whether no guard but a `SharedGuard` stands for this hold.
    pub(super) shared: AtomicBool,
    seat: Mutex<Option<Seat>>,
    /// Tells that the seat was taken.
    left: Notify,
}

/// What makes a grant a hold of a provider: it is there until the release.
struct Seat {
    turn: Turn,
    shared: Arc<Shared>,
    keys: Arc<Keys>,
    watchdog: Option<AbortHandle>,
}

impl Hold {
    pub(crate) fn new(name: LockName, lease: Lease) -> Self {
        Self {
            name,
            lease,
            latch: Latch::new(),
            since: Instant::now(),
            until: None,
            token: OnceCell::new(),
            over: AtomicBool::new(false),
            loss_seen: AtomicBool::new(false),
            shared: AtomicBool::new(false),
            seat: Mutex::new(None),
            left: Notify::new(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    fn is_seated(&self) -> bool {
        self.seat
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    fn take_seat(&self) -> Option<Seat> {
        let mut seat = self.seat.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = seat.take()?;
        self.left.notify_waiters();
        if let Some(watchdog) = &seat.watchdog {
            watchdog.abort();
        }
        Some(seat)
    }
}

/// Joins a grant to the turn that it was asked for in, and to the policy of who asked.
pub(crate) fn seat(
    shared: &Arc<Shared>,
    keys: Arc<Keys>,
    turn: Turn,
    mut granted: Granted,
    policy: LockPolicy,
) -> Granted {
    let now = Instant::now();
    let hold = &mut Arc::get_mut(&mut granted)
        .expect("a grant is not shared before it is held")
        .hold;
    hold.since = now;
    hold.until = policy.get_max_hold().and_then(|max| now.checked_add(max));
    let until = hold.until;
    turn.stage(Stage::Holding(Arc::downgrade(&granted)));
    let watchdog = until.and_then(|until| watch(&granted, until));
    keys.held(1.0);
    let shared = Arc::clone(shared);
    let seat = Seat {
        turn,
        shared,
        keys,
        watchdog,
    };
    *granted
        .hold
        .seat
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = Some(seat);
    granted
}

/// Takes the lock away at `until`, also from work that is never polled again. Where no runtime is
/// current, the accessors and `protect` alone look at the time.
fn watch(granted: &Granted, until: Instant) -> Option<AbortHandle> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let held = Arc::downgrade(granted);
    let watchdog = runtime.spawn(async move {
        tokio::time::sleep_until(until).await;
        if let Some(held) = held.upgrade() {
            held.forfeit(LossReason::MaxHold).await;
        }
    });
    Some(watchdog.abort_handle())
}

impl Held {
    /// Why the lock is lost; `None` while it is ours, and once it was given back.
    pub(crate) fn loss(&self) -> Option<LossReason> {
        let hold = &self.hold;
        if hold.is_over() {
            return None;
        }
        if hold.until.is_some_and(|until| Instant::now() >= until) {
            hold.latch.set(LossReason::MaxHold);
        }
        let reason = hold.latch.get().or_else(|| hold.lease.reason())?;
        if !hold.loss_seen.swap(true, Ordering::AcqRel) {
            let lock = hold.name.label();
            let held_for = hold.since.elapsed();
            tracing::error!(lock, ?held_for, %reason, "a distributed lock was lost while it was held");
            crate::observe::lost(reason);
        }
        Some(reason)
    }

    pub(crate) fn is_valid(&self) -> bool {
        !self.hold.is_over() && self.loss().is_none()
    }

    /// Says once more what [`is_valid`](Self::is_valid) says, as a result.
    pub(crate) fn check(&self) -> Result<(), LockError> {
        match self.loss() {
            None if self.hold.is_over() => Err(self.lost_error("it was released")),
            None => Ok(()),
            Some(reason) => Err(self.lost_error(reason.to_string())),
        }
    }

    fn lost_error(&self, detail: impl Into<std::borrow::Cow<'static, str>>) -> LockError {
        LockError::lost(detail).with_lock(&self.hold.name)
    }

    pub(crate) async fn fencing_token(&self) -> Result<FencingToken, LockError> {
        self.check()?;
        let issue = || async {
            let Some(token) = self.slot().fencing_token() else {
                return Err(self.lost_error("it was released"));
            };
            token.await.map(FencingToken::new)
        };
        let token = self.hold.token.get_or_try_init(issue).await;
        let token = *token.map_err(|error| error.with_lock(&self.hold.name))?;
        // A token that came after the loss could be newer than the next holder's.
        self.check()?;
        Ok(token)
    }

    /// Starts the release, if it has not begun, and calls the next in line.
    pub(crate) fn finish(&self) {
        let Some(seat) = self.hold.take_seat() else {
            return;
        };
        let outcome = self.end_hold();
        self.slot().abandon();
        seat.leave(&self.hold, outcome);
    }

    /// Starts the release; `Err` is one that is over already, with how it ended.
    pub(super) fn start_release(self: &Arc<Self>) -> Result<Releasing, Result<(), LockError>> {
        let Some(seat) = self.hold.take_seat() else {
            // Taken away by `forfeit`.
            return Err(self.check());
        };
        let valid = self.check();
        let outcome = self.end_hold();
        let leaving = Leaving {
            held: Arc::clone(self),
            seat: Some(seat),
            outcome,
        };
        match self.slot().release() {
            Some(answer) => Ok(Releasing {
                answer,
                leaving,
                valid,
            }),
            None => Err(valid),
        }
    }

    /// Declares the lock lost, gives its work a moment to stop, and unlocks it.
    pub(crate) async fn forfeit(&self, reason: LossReason) {
        self.hold.latch.set(reason);
        self.loss();
        let mut left = pin!(self.hold.left.notified());
        left.as_mut().enable();
        if self.hold.is_seated() {
            // Elapsed or not, `finish` ends it.
            let _ = tokio::time::timeout(STOPPING, left).await;
        }
        self.finish();
    }

    /// From here on a loss is none.
    fn end_hold(&self) -> HoldOutcome {
        let outcome = match self.loss() {
            None => HoldOutcome::Released,
            Some(_) => HoldOutcome::Lost,
        };
        if matches!(outcome, HoldOutcome::Released) {
            self.hold.over.store(true, Ordering::Release);
        }
        outcome
    }
}

/// A release that the backend has not answered yet.
pub(super) struct Releasing {
    answer: Pin<Box<dyn Future<Output = Result<(), LockError>> + Send>>,
    leaving: Leaving,
    valid: Result<(), LockError>,
}

impl Releasing {
    /// Waits for the backend's answer as long as an exchange may take. Boxed, so that futures which
    /// hold a guard and release it stay small.
    pub(super) fn answer(self) -> Pin<Box<dyn Future<Output = Result<(), LockError>> + Send>> {
        Box::pin(self.wait())
    }

    async fn wait(self) -> Result<(), LockError> {
        let bound = self
            .leaving
            .seat
            .as_ref()
            .map(|seat| seat.shared.response_timeout);
        let answer = match tokio::time::timeout(bound.unwrap_or_default(), self.answer).await {
            Ok(answer) => answer,
            Err(_) => Err(LockError::unavailable(
                "the release was not answered in time",
            )),
        };
        let name = &self.leaving.held.hold.name;
        self.valid
            .and(answer)
            .map_err(|error| error.with_lock(name))
    }
}

/// Calls the next in line when it is dropped, be it that the release was answered or not.
struct Leaving {
    held: Granted,
    seat: Option<Seat>,
    outcome: HoldOutcome,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            seat.leave(&self.held.hold, self.outcome);
        }
    }
}

impl Seat {
    fn leave(self, hold: &Hold, outcome: HoldOutcome) {
        self.keys.held(-1.0);
        self.keys.held_for(outcome, hold.since.elapsed());
        let Self { turn, shared, .. } = self;
        drop(turn);
        shared.left();
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("lock", &self.name.label())
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}
