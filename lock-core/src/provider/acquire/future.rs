//! The future of an acquire.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, mem};

use tokio::task::coop;

use super::{Slow, Started, Waiting, start};
use crate::nesting::Group;
use crate::provider::LockProvider;
use crate::provider::wait::Wait;
use crate::terms::Terms;
use crate::{LockError, LockGuard, LockName, LockPolicy};

/// Acquires a lock; the future of
/// [`DistributedLock::acquire_owned`](crate::DistributedLock::acquire_owned).
///
/// It allocates only when it has to wait. It takes part in the [cooperation](tokio::task::coop) of the
/// runtime's tasks: a loop of acquires that never wait lets other tasks run.
#[must_use = "futures do nothing unless polled"]
pub struct Acquire(State);

enum State {
    Start(LockProvider, LockName, Terms, Waiting),
    Slow(Slow),
    /// Not given yet. Dropped, it is released.
    Over(Result<LockGuard, LockError>),
    Done,
}

impl Acquire {
    pub(crate) fn new(
        provider: LockProvider,
        name: LockName,
        terms: Terms,
        policy: LockPolicy,
    ) -> Self {
        Self(State::Start(provider, name, terms, Waiting::From(policy)))
    }

    /// With a deadline that others share.
    pub(in crate::provider) fn within(
        provider: LockProvider,
        name: LockName,
        wait: Wait,
        policy: LockPolicy,
        group: Group,
    ) -> Self {
        let waiting = Waiting::Within(wait, policy, group);
        Self(State::Start(provider, name, Terms::EXCLUSIVE, waiting))
    }
}

impl Future for Acquire {
    type Output = Result<LockGuard, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let state = mem::replace(&mut self.0, State::Done);
        let mut slow = match state {
            State::Start(provider, name, terms, waiting) => {
                match start(provider.shared, name, terms, waiting, cx) {
                    Started::Over(result) => return self.give(result, cx),
                    Started::Slow(slow) => slow,
                }
            }
            State::Slow(slow) => slow,
            State::Over(result) => return self.give(result, cx),
            State::Done => return Poll::Pending,
        };
        match slow.as_mut().poll(cx) {
            Poll::Ready(result) => self.give(result, cx),
            Poll::Pending => {
                self.0 = State::Slow(slow);
                Poll::Pending
            }
        }
    }
}

impl Acquire {
    /// Gives the result, unless it is another task's turn to run: a loop of acquires that never wait lets
    /// others run. That is looked at here and not before, so that the place in line is that of the call.
    fn give(
        &mut self,
        result: Result<LockGuard, LockError>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<LockGuard, LockError>> {
        match coop::poll_proceed(cx) {
            Poll::Ready(coop) => {
                coop.made_progress();
                Poll::Ready(result)
            }
            Poll::Pending => {
                self.0 = State::Over(result);
                Poll::Pending
            }
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if let State::Over(Ok(guard)) = &self.0 {
            guard.give_back();
        }
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").finish_non_exhaustive()
    }
}
