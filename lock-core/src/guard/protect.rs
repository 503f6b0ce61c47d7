//! Work that stops when a lock that it needs is lost.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, ready};

use tokio::task::coop;

use super::{LockGuard, Lost};
use crate::LockError;
use crate::nesting::Protection;

/// Runs `work` as long as all guards are valid.
///
/// Validity is looked at before every poll of the work, since a process can be frozen between two
/// polls, and after the last, since it can be frozen in one.
pub(super) async fn protect<F: Future>(
    guards: &[LockGuard],
    work: F,
) -> Result<F::Output, LockError> {
    // Work can be ready: a loop of it lets other tasks run all the same.
    let mut begun = false;
    let mut work = pin!(work);
    let protection = Protection::of(guards);
    let mut first: Option<Lost> = None;
    let mut more: Vec<Lost> = Vec::new();
    poll_fn(move |cx| {
        if !begun {
            ready!(coop::poll_proceed(cx)).made_progress();
            begun = true;
        }
        guards.iter().try_for_each(LockGuard::check)?;
        let entered = protection.as_ref().map(Protection::enter);
        let poll = work.as_mut().poll(cx);
        drop(entered);
        if let Poll::Ready(output) = poll {
            guards.iter().try_for_each(LockGuard::check)?;
            return Poll::Ready(Ok(output));
        }
        if first.is_none() {
            let mut lost = guards.iter().map(LockGuard::lost);
            first = lost.next();
            more = lost.collect();
        }
        for (lost, guard) in first.iter_mut().chain(&mut more).zip(guards) {
            if lost.poll_lost(cx).is_ready() {
                guard.check()?;
            }
        }
        Poll::Pending
    })
    .await
}
