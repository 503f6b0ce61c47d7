//! What the library keeps about a lock while it is held, for all that look at it.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::select;
use tokio::sync::{Notify, OnceCell};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::cohort::Cohort;
use super::losses;
use super::lost::{Lost, watch};
use super::overtime;
use super::seat::{Account, Place, Seat, Watchdog};
use crate::backend::{Granted, Held};
use crate::lease::{Latch, Lease, LossReason, Registration};
use crate::nesting::Mark;
use crate::observe::{self, Keys};
use crate::provider::{Shared, Turn};
use crate::queue::Stage;
use crate::{FencingToken, LockError, LockMode, LockName, LockPolicy, trace};

pub(crate) struct Hold {
    pub(crate) name: LockName,
    pub(crate) mode: LockMode,
    pub(crate) lease: Lease,
    /// Why this hold was lost, once that was seen.
    pub(crate) latch: Latch,
    /// `None` until it is held.
    since: Option<Instant>,
    pub(super) cohort: Cohort,
    /// The end of `max_hold`.
    pub(crate) until: OnceLock<Instant>,
    /// Until when it is kept, also after the release. In a box, which few have.
    kept_until: OnceLock<Box<Instant>>,
    token: OnceCell<FencingToken>,
    /// Cancelled at the loss; made when it is first asked for.
    cancellation: OnceLock<CancellationToken>,
    /// Whether the holder has given the lock back: then a loss is no loss.
    pub(super) over: AtomicBool,
    /// Whether no guard but a `SharedGuard` stands for this hold.
    pub(super) shared: AtomicBool,
    /// Whether the grant serves no other holder after this one.
    tied: AtomicBool,
    seat: Mutex<Option<Seat>>,
    /// Where the order of locks is watched.
    mark: Option<Box<Mark>>,
    /// Tells that the seat was taken.
    pub(super) left: Notify,
}

impl Hold {
    pub(crate) fn new(name: LockName, mode: LockMode, lease: Lease) -> Self {
        Self {
            name,
            mode,
            lease,
            latch: Latch::new(),
            since: None,
            cohort: Cohort::default(),
            until: OnceLock::new(),
            kept_until: OnceLock::new(),
            token: OnceCell::new(),
            cancellation: OnceLock::new(),
            over: AtomicBool::new(false),
            shared: AtomicBool::new(false),
            tied: AtomicBool::new(false),
            seat: Mutex::new(None),
            mark: None,
            left: Notify::new(),
        }
    }

    /// For the next holder of the same grant.
    pub(super) fn next(&self) -> Self {
        Self::new(self.name.clone(), self.mode, self.lease.clone())
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

    /// Until when it is kept after a release now.
    pub(super) fn kept_until(&self) -> Option<Instant> {
        let until = self.kept_until.get().map(|until| **until);
        until.filter(|until| Instant::now() < *until)
    }

    pub(crate) fn held_for(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// The grant serves no other holder from now on, and goes back to the store: what the store does at a release,
    /// or at a grant, has to come between this holder and the next.
    pub(crate) fn tie(&self) {
        self.tied.store(true, Ordering::Release);
    }

    pub(super) fn is_tied(&self) -> bool {
        self.tied.load(Ordering::Acquire)
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    pub(super) fn seat(&self) -> MutexGuard<'_, Option<Seat>> {
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

    pub(super) fn take_seat(&self) -> Option<Seat> {
        let mut seat = self.seat().take()?;
        self.left.notify_waiters();
        if let Some(mark) = &self.mark {
            mark.end();
        }
        // There is nothing to watch any more.
        seat.watching = None;
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

/// Joins a grant to the turn that it was asked for in, which a reader passes on.
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
    let account = Account {
        keys,
        span: trace::holding(shared.backend.kind(), &granted.hold.name),
    };
    let seat = |place| Seat {
        place,
        shared: Arc::clone(shared),
        watching: None,
        account: Some(account),
    };
    let holder = Arc::downgrade(&granted);
    // The seat stays locked until the hold is known: a caller that gets in line by then finds it.
    let mut own = granted.hold.seat();
    if granted.hold.mode == LockMode::Shared {
        let (reading, next) = turn.read(holder);
        *own = Some(seat(Place::Reading(reading)));
        drop(own);
        next.wake();
        return granted;
    }
    let (is_awaited, refused) = turn.stage_unwoken(Stage::Holding(holder));
    *own = Some(seat(Place::Turn(turn)));
    drop(own);
    refused.wake();
    if is_awaited {
        granted.watch();
    }
    granted
}

impl Held {
    /// Follows a policy from now on: the lock is kept until the end of `at_least`, counted from when it was
    /// acquired, and taken away at the end of `max_hold`.
    pub(crate) fn follow(self: &Arc<Self>, policy: &LockPolicy) {
        let since = self.hold.since();
        if let Some(until) = (policy.at_least()).and_then(|at_least| since?.checked_add(at_least)) {
            // The first time is kept.
            let _ = self.hold.kept_until.set(Box::new(until));
        }
        let until = (policy.max_hold()).and_then(|max_hold| Instant::now().checked_add(max_hold));
        if let Some(until) = until
            && self.hold.until.set(until).is_ok()
        {
            self.watch();
            if let Some(seat) = &mut *self.hold.seat() {
                seat.watching.get_or_insert_default().overtime = overtime::watch(until, self);
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
        let watchdogs = &mut seat.watching.get_or_insert_default().watchdogs;
        // Those whose runtime has ended.
        watchdogs.retain(|watchdog| !watchdog.task.is_finished());
        let id = runtime.id();
        if watchdogs.iter().all(|watchdog| watchdog.runtime != id) {
            let task = runtime.spawn(watch(self)).abort_handle();
            watchdogs.push(Watchdog { runtime: id, task });
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
    pub(super) fn lose(&self, reason: LossReason) {
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

    pub(super) fn lost_error(&self, detail: impl Into<Cow<'static, str>>) -> LockError {
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

    /// Ends when the lock is lost, also while the server owes the answer: no token is of use by then.
    pub(crate) async fn fencing_token(self: &Arc<Self>) -> Result<FencingToken, LockError> {
        // The token is known after the first call.
        consume_budget().await;
        if self.hold.mode == LockMode::Shared {
            let error = LockError::misconfigured(
                "a reader has no fencing token: tokens order writers, and readers hold the lock together; \
                 acquire the lock without `shared` for work that needs one",
            );
            return Err(error.with_lock(&self.hold.name));
        }
        self.check()?;
        // Nothing is asked of the server, so that there is no answer to bound, nor a loss to wait for.
        if let Some(token) = self.hold.token.get() {
            return Ok(*token);
        }
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
        let token = select! {
            biased;
            token = timeout(bound, self.hold.token.get_or_try_init(issue)) => token,
            reason = Lost::new(Arc::clone(self)) => return Err(self.lost_error(reason.to_string())),
        };
        let token = token.unwrap_or_else(|_| Err(LockError::unanswered_since(asked, bound)));
        // The caller may have worked under the lock before it asked.
        let token =
            *token.map_err(|error| error.with_lock(&self.hold.name).with_outcome_unknown())?;
        // A token that came after the loss could be newer than the next holder's.
        self.check()?;
        Ok(token)
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
