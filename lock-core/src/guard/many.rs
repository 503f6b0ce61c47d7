//! Many guards over one work, which may be polled often: a poll of it does not look at each of them.
//!
//! # Why no loss is overlooked
//!
//! A guard is lost in one of two ways:
//!
//! - A latch is set, its own or that of its lease. Both have a waker of the [`Alarm`], which stays on.
//! - A time is over, that of its lease or of its longest hold. Deadlines only move forward, and the longest hold is
//!   bounded before its caller has the guard. So none ends by itself before the first end that the last look at all
//!   guards has found.
//!
//! Each poll looks at the alarm and at the clocks, and at all guards where these call for it. So does a timer, at the
//! first end and every tick of the leases: it wakes work that waits, and finds the deadlines that were moved.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::lost::{earlier, next_look};
use super::{Hold, LockGuard};
use crate::LockError;
use crate::lease::{Deadlines, Registration};

/// Sees to it that the loss of one of many guards stops the work of all.
pub(super) struct Many<'a> {
    places: Vec<Place<'a>>,
    alarm: Arc<Alarm>,
    /// `None` until they were looked at.
    outlook: Option<Outlook>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<'a> Many<'a> {
    pub(super) fn new(guards: &'a [LockGuard]) -> Self {
        let alarm = Arc::<Alarm>::default();
        let waker = Waker::from(Arc::clone(&alarm));
        let places = guards.iter().map(|guard| Place::new(guard, &waker));
        Self {
            places: places.collect(),
            alarm,
            outlook: None,
            timer: None,
        }
    }

    /// Whether all are valid: an error with the first that is not.
    pub(super) fn check(&mut self) -> Result<(), LockError> {
        let outlook = self.outlook.as_ref();
        if !self.alarm.is_on() && outlook.is_some_and(|outlook| !outlook.is_over()) {
            return Ok(());
        }
        self.look()
    }

    /// The same, and wakes the task when one may not be valid any more.
    pub(super) fn poll_check(&mut self, cx: &mut Context<'_>) -> Result<(), LockError> {
        // Before the check: an alarm that it does not see wakes the task.
        self.alarm.listen(cx.waker());
        self.check()?;
        loop {
            if self.timer.is_none() {
                let next_look = self.outlook.as_ref().and_then(|outlook| outlook.next_look);
                self.timer = next_look.map(|look| Box::pin(sleep(look)));
            }
            let timer = self.timer.as_mut();
            if timer.is_none_or(|timer| timer.as_mut().poll(cx).is_pending()) {
                return Ok(());
            }
            self.timer = None;
            self.look()?;
        }
    }

    /// Looks at all of them.
    fn look(&mut self) -> Result<(), LockError> {
        let mut outlook = Outlook::default();
        for place in &self.places {
            place.guard.check()?;
            outlook.add(place.hold());
        }
        self.outlook = Some(outlook);
        Ok(())
    }
}

/// What is ahead of all guards, as long as nothing is lost.
#[derive(Default)]
struct Outlook {
    leases: Deadlines,
    /// The first end of a longest hold.
    max_hold: Option<Instant>,
    /// When the timer looks at them again.
    next_look: Option<Duration>,
}

impl Outlook {
    fn add(&mut self, hold: &Hold) {
        self.leases.add(&hold.lease);
        self.max_hold = earlier(self.max_hold, hold.until.get().copied());
        self.next_look = earlier(self.next_look, next_look(hold));
    }

    /// Whether a guard can have ended by itself.
    fn is_over(&self) -> bool {
        let max_hold = self.max_hold;
        self.leases.may_have_passed() || max_hold.is_some_and(|until| Instant::now() >= until)
    }
}

/// Where a guard finds the alarm.
struct Place<'a> {
    guard: &'a LockGuard,
    own: Registration,
    lease: Registration,
}

impl<'a> Place<'a> {
    fn new(guard: &'a LockGuard, alarm: &Waker) -> Self {
        let (mut own, mut lease) = (Registration::default(), Registration::default());
        let hold = &guard.held.hold;
        // What is lost already is seen by the first look, which comes after this.
        let _ = hold.latch.poll_set(&mut own, alarm);
        let _ = hold.lease.poll_lost(&mut lease, alarm);
        Self { guard, own, lease }
    }

    fn hold(&self) -> &'a Hold {
        &self.guard.held.hold
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let hold = self.hold();
        hold.latch.unregister(&mut self.own);
        hold.lease.unregister(&mut self.lease);
    }
}

/// Goes on with the first loss, for good, and wakes the task that does the work.
#[derive(Default)]
struct Alarm {
    is_on: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Alarm {
    fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// From now on wakes this task.
    fn listen(&self, waker: &Waker) {
        let mut task = self.task();
        if task.as_ref().is_none_or(|task| !task.will_wake(waker)) {
            let old = task.replace(waker.clone());
            drop(task);
            // Outside the lock: the drop of a waker may run what it likes.
            drop(old);
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.is_on.store(true, Ordering::Release);
        let task = self.task().take();
        // Outside the lock, likewise.
        if let Some(task) = task {
            task.wake();
        }
    }
}
