//! Work that stops when a lock that it needs is lost.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use tokio::task::coop;

use super::many::Many;
use super::{LockGuard, Lost};
use crate::LockError;
use crate::nesting::Protection;

/// Runs `work` as long as all guards are valid.
///
/// Validity is looked at before every poll of the work, since a process can be frozen between two
/// polls, and after the last, since it can be frozen in one. What that costs with many guards: see [`Many`].
pub(super) async fn protect<F: Future>(
    guards: &[LockGuard],
    work: F,
) -> Result<F::Output, LockError> {
    // Work can be ready: a loop of it lets other tasks run all the same.
    let mut begun = false;
    let mut work = pin!(work);
    let protection = Protection::of(guards);
    let mut watch = Watch::Ahead(guards);
    poll_fn(move |cx| {
        if !begun {
            ready!(coop::poll_proceed(cx)).made_progress();
            begun = true;
        }
        watch.check()?;
        let entered = protection.as_ref().map(Protection::enter);
        let poll = work.as_mut().poll(cx);
        drop(entered);
        if let Poll::Ready(output) = poll {
            guards.iter().try_for_each(LockGuard::check)?;
            return Poll::Ready(Ok(output));
        }
        watch.poll_check(cx)?;
        Poll::Pending
    })
    .await
}

/// How the guards are watched.
enum Watch<'a> {
    /// Until the work waits for the first time: some never does.
    Ahead(&'a [LockGuard]),
    One(&'a LockGuard, Lost),
    /// In a box, which a future over one guard does not carry.
    Many(Box<Many<'a>>),
}

impl<'a> Watch<'a> {
    /// Whether all are valid.
    fn check(&mut self) -> Result<(), LockError> {
        match self {
            Self::Ahead(guards) => guards.iter().try_for_each(LockGuard::check),
            Self::One(guard, _) => guard.check(),
            Self::Many(many) => many.check(),
        }
    }

    /// The same after a poll of work that waits, and wakes the task at a loss.
    fn poll_check(&mut self, cx: &mut Context<'_>) -> Result<(), LockError> {
        if let Self::Ahead(guards) = *self {
            *self = Self::of(guards);
        }
        if let Self::Many(many) = self {
            return many.poll_check(cx);
        }
        if let Self::One(guard, lost) = self
            && lost.poll_lost(cx).is_ready()
        {
            guard.check()?;
        }
        Ok(())
    }

    fn of(guards: &'a [LockGuard]) -> Self {
        match guards {
            [guard] => Self::One(guard, guard.lost()),
            _ => Self::Many(Box::new(Many::new(guards))),
        }
    }
}
