//! What the library keeps about a lock while it is held, for all that look at it.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::runtime::{self, Handle};
use tokio::sync::{Notify, OnceCell};
use tokio::task::AbortHandle;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::cohort::Cohort;
use super::losses;
use super::lost::watch;
use super::overtime;
use crate::backend::{Granted, Held};
use crate::lease::{Latch, Lease, LossReason, Registration};
use crate::nesting::Mark;
use crate::observe::{self, HoldOutcome, Keys};
use crate::provider::{Shared, Turn};
use crate::queue::Stage;
use crate::{FencingToken, LockError, LockName, trace};

/// How long the work of a lock that was taken away has to stop by itself, before the lock is
/// unlocked under it. It is not valid any more from the start of this time.
pub(crate) const STOPPING: Duration = Duration::from_millis(100);

pub(crate) struct Hold {
    pub(crate) name: LockName,
    pub(crate) lease: Lease,
    /// Why this hold was lost, once that was seen.
    pub(crate) latch: Latch,
    /// `None` until it is held.
    since: Option<Instant>,
    pub(super) cohort: Cohort,
    /// The end of `max_hold`.
    pub(crate) until: OnceLock<Instant>,
    token: OnceCell<FencingToken>,
    /// Cancelled at the loss; made when it is first asked for.
    cancellation: OnceLock<CancellationToken>,
    /// Whether the holder has given the lock back: then a loss is no loss.
    over: AtomicBool,
    /// Whether no guard but a `SharedGuard` stands for this hold.
    pub(super) shared: AtomicBool,
    seat: Mutex<Option<Seat>>,
    /// Where the order of locks is watched.
    mark: Option<Box<Mark>>,
    /// Tells that the seat was taken.
    left: Notify,
}

/// What makes a grant a hold of a provider: it is there until the release.
struct Seat {
    turn: Turn,
    shared: Arc<Shared>,
    /// One in each runtime that relies on one: each can end before the others.
    watchdogs: Vec<Watchdog>,
    /// Where there is a longest hold.
    overtime: Option<overtime::Entry>,
    /// Until the end of the hold is reported.
    account: Option<Account>,
}

/// A task that frees the lock once it is lost.
struct Watchdog {
    runtime: runtime::Id,
    task: AbortHandle,
}

/// Where a hold is reported.
struct Account {
    keys: Arc<Keys>,
    /// Where it is used; a box is smaller where it is not.
    span: Option<Box<Span>>,
}

impl Hold {
    pub(crate) fn new(name: LockName, lease: Lease) -> Self {
        Self {
            name,
            lease,
            latch: Latch::new(),
            since: None,
            cohort: Cohort::default(),
            until: OnceLock::new(),
            token: OnceCell::new(),
            cancellation: OnceLock::new(),
            over: AtomicBool::new(false),
            shared: AtomicBool::new(false),
            seat: Mutex::new(None),
            mark: None,
            left: Notify::new(),
        }
    }

    /// For the next holder of the same grant.
    fn next(&self) -> Self {
        Self::new(self.name.clone(), self.lease.clone())
    }

    pub(crate) fn watch_order(&mut self, mark: Option<Mark>) {
        self.mark = mark.map(Box::new);
    }

    pub(crate) fn mark(&self) -> Option<&Mark> {
        self.mark.as_deref()
    }

    /// Since when it is held.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    pub(crate) fn held_for(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    fn seat(&self) -> MutexGuard<'_, Option<Seat>> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancels this token when the lock is lost. The latch wakes it as it wakes all that wait for a loss,
    /// so that none is missed; it is registered for as long as the latch lives.
    pub(super) fn cancel_when_lost(&self, token: CancellationToken) {
        let cancel = Waker::from(Arc::new(Cancel(token.clone())));
        if (self.latch.poll_set(&mut Registration::default(), &cancel)).is_ready() {
            token.cancel();
        }
    }

    fn take_seat(&self) -> Option<Seat> {
        let seat = self.seat().take()?;
        self.left.notify_waiters();
        if let Some(mark) = &self.mark {
            mark.end();
        }
        for watchdog in &seat.watchdogs {
            watchdog.task.abort();
        }
        Some(seat)
    }
}

/// Cancels a token when it is woken.
struct Cancel(CancellationToken);

impl Wake for Cancel {
    fn wake(self: Arc<Self>) {
        self.0.cancel();
    }
}

/// Joins a grant to the turn that it was asked for in.
pub(crate) fn seat(
    shared: &Arc<Shared>,
    keys: Arc<Keys>,
    turn: Turn,
    mut granted: Granted,
) -> Granted {
    let hold = Arc::get_mut(&mut granted).map(|held| &mut held.hold);
    let hold = hold.expect("a grant is not shared before it is held");
    let now = Instant::now();
    hold.since = Some(now);
    hold.cohort.begin(now, shared.local_handover);
    keys.held(1);
    // The seat stays locked until the hold is known: a caller that gets in line by then finds it.
    let mut place = granted.hold.seat();
    let seat = place.insert(Seat {
        turn,
        shared: Arc::clone(shared),
        watchdogs: Vec::new(),
        overtime: None,
        account: Some(Account {
            keys,
            span: trace::holding(shared.backend.kind(), &granted.hold.name),
        }),
    });
    let holding = Stage::Holding(Arc::downgrade(&granted));
    let (is_awaited, refused) = seat.turn.stage_unwoken(holding);
    drop(place);
    refused.wake();
    if is_awaited {
        granted.watch();
    }
    granted
}

impl Held {
    /// Takes the lock away once it has been held for so long.
    pub(crate) fn limit(self: &Arc<Self>, max_hold: Option<Duration>) {
        let until = max_hold.and_then(|max_hold| Instant::now().checked_add(max_hold));
        if let Some(until) = until
            && self.hold.until.set(until).is_ok()
        {
            self.watch();
            if let Some(seat) = &mut *self.hold.seat() {
                seat.overtime = overtime::watch(until, self);
            }
        }
    }

    /// Frees the lock for this process once it is lost, also when the guard is not looked at any
    /// more. Where no runtime is current, only the accessors and `protect` look.
    pub(crate) fn watch(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut seat = self.hold.seat();
        let Some(seat) = &mut *seat else { return };
        // Those whose runtime has ended.
        seat.watchdogs
            .retain(|watchdog| !watchdog.task.is_finished());
        let id = runtime.id();
        if seat.watchdogs.iter().all(|watchdog| watchdog.runtime != id) {
            let task = runtime.spawn(watch(self)).abort_handle();
            seat.watchdogs.push(Watchdog { runtime: id, task });
        }
    }

    /// Why the lock is lost; `None` while it is ours, and once it was given back.
    pub(crate) fn loss(&self) -> Option<LossReason> {
        let hold = &self.hold;
        if hold.is_over() {
            return None;
        }
        hold.latch.get().or_else(|| self.new_loss())
    }

    /// A loss that was not seen yet. The first reason is kept: each caller gets the same.
    fn new_loss(&self) -> Option<LossReason> {
        let hold = &self.hold;
        let is_over_time = || {
            hold.until
                .get()
                .is_some_and(|until| Instant::now() >= *until)
        };
        let reason =
            (hold.lease.reason()).or_else(|| is_over_time().then_some(LossReason::MaxHold))?;
        self.lose(reason);
        hold.latch.get()
    }

    /// Notes and reports a loss, unless one is known already.
    fn lose(&self, reason: LossReason) {
        if self.hold.latch.set(reason) {
            losses::report(&self.hold.name, self.hold.held_for(), reason);
            observe::lost(reason);
        }
    }

    /// Whether it can be handed out. The end of what was not held yet is not reported as a loss.
    pub(crate) fn is_fresh(&self) -> bool {
        self.hold.lease.is_valid()
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.loss().is_none() && !self.hold.is_over()
    }

    /// Whether the lock is ours: an error once it is lost or released.
    pub(crate) fn check(&self) -> Result<(), LockError> {
        match self.loss() {
            None if self.hold.is_over() => Err(self.lost_error("it was released")),
            None => Ok(()),
            Some(reason) => Err(self.lost_error(reason.to_string())),
        }
    }

    fn lost_error(&self, detail: impl Into<Cow<'static, str>>) -> LockError {
        LockError::lost(detail).with_lock(&self.hold.name)
    }

    /// A token that is cancelled when the lock is lost.
    pub(crate) fn cancellation_token(self: &Arc<Self>) -> CancellationToken {
        let token = self.hold.cancellation.get_or_init(|| {
            let token = CancellationToken::new();
            self.hold.cancel_when_lost(token.clone());
            token
        });
        self.look_out();
        token.clone()
    }

    /// Sees to it that a loss is noticed by itself.
    pub(super) fn look_out(self: &Arc<Self>) {
        self.watch();
        // One that is due now is latched by this look.
        self.loss();
    }

    pub(crate) async fn fencing_token(&self) -> Result<FencingToken, LockError> {
        // The token is known after the first call.
        consume_budget().await;
        self.check()?;
        let released = || self.lost_error("it was released");
        let bound = self
            .hold
            .seat()
            .as_ref()
            .map(|seat| seat.shared.response_timeout);
        let bound = bound.ok_or_else(released)?;
        let issue = || async {
            // One of several callers that asks after others have failed.
            self.check()?;
            let token = self.slot().fencing_token().ok_or_else(released)?;
            token.await.map(FencingToken::new)
        };
        let asked = std::time::Instant::now();
        let token = timeout(bound, self.hold.token.get_or_try_init(issue)).await;
        let token = token.unwrap_or_else(|_| Err(LockError::unanswered_since(asked, bound)));
        // The caller may have worked under the lock before it asked.
        let token =
            *token.map_err(|error| error.with_lock(&self.hold.name).with_outcome_unknown())?;
        // A token that came after the loss could be newer than the next holder's.
        self.check()?;
        Ok(token)
    }

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
        if valid.is_ok() {
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
    answer: Pin<Box<dyn Future<Output = Result<(), LockError>> + Send>>,
    leaving: Leaving,
    valid: Result<(), LockError>,
}

impl Releasing {
    /// Waits for the backend's answer as long as an exchange may take. Boxed, so that futures which
    /// hold a guard and release it stay small.
    pub(super) fn answer(self) -> Pin<Box<dyn Future<Output = Result<(), LockError>> + Send>> {
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
        seat.close(hold);
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
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(mut seat) = self.seat.take() {
            seat.close(&self.held.hold);
        }
    }
}

impl Seat {
    /// Reports the end of the hold, once.
    fn close(&mut self, hold: &Hold) {
        let Some(Account { keys, span }) = self.account.take() else {
            return;
        };
        let outcome = match hold.latch.get() {
            None => HoldOutcome::Released,
            Some(_) => HoldOutcome::Lost,
        };
        keys.held(-1);
        let held_for = hold.held_for();
        keys.held_for(outcome, held_for);
        if let Some(span) = span {
            trace::held(&span, outcome.as_str(), held_for);
        }
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
