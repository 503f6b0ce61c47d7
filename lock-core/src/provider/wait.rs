//! Until when an acquire waits, and how it waits for an answer.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::closing::Closing;
use crate::{LockError, LockPolicy};

/// The deadline of one acquire.
#[derive(Clone, Copy)]
pub(super) struct Wait {
    started: Instant,
    /// When the wait is over; `None` for never.
    pub(super) deadline: Option<Instant>,
    pub(super) zero: bool,
    pub(super) response_timeout: Duration,
}

impl Wait {
    pub(super) fn new(policy: LockPolicy, response_timeout: Duration) -> Self {
        let (wait, started) = (policy.wait(), Instant::now());
        Self {
            started,
            deadline: (started.checked_add(wait))
                .filter(|deadline| deadline.checked_add(response_timeout).is_some()),
            zero: wait.is_zero(),
            response_timeout,
        }
    }

    /// How long it may take; `None` for ever.
    pub(super) fn limit(&self) -> Option<Duration> {
        (self.deadline).map(|deadline| deadline.saturating_duration_since(self.started))
    }

    pub(super) fn waited(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn waited_until(&self, then: Option<Instant>) -> Duration {
        then.map_or_else(
            || self.waited(),
            |then| then.saturating_duration_since(self.started),
        )
    }

    pub(super) fn is_over(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// This time, or the deadline where that is first.
    pub(super) fn bounded(&self, at: Option<Instant>) -> Option<Instant> {
        match (at, self.deadline) {
            (Some(at), Some(deadline)) => Some(at.min(deadline)),
            (at, deadline) => at.or(deadline),
        }
    }

    /// When an answer to a question that is asked now is waited for no longer: a whole exchange is
    /// allowed, within `wait + response_timeout` over all.
    pub(super) fn give_up(&self) -> Option<Instant> {
        let deadline = self.deadline?;
        let exchange = Instant::now() + self.response_timeout;
        Some(exchange.clamp(deadline, deadline + self.response_timeout))
    }
}

/// Waits for the answer to a question that is asked now, for as long as the wait [allows](Wait::give_up).
///
/// # Errors
///
/// `Unavailable` where the answer did not come in time, `Closed` where the provider was shut down before it came.
pub(super) async fn answer<F: Future>(
    shared: &Shared,
    wait: &Wait,
    question: F,
) -> Result<F::Output, LockError> {
    let asked = std::time::Instant::now();
    let answer = tokio::select! {
        biased;
        answer = until(wait.give_up(), question) => answer,
        () = Closing::of(shared) => return Err(LockError::closed()),
    };
    answer.ok_or_else(|| LockError::unanswered_since(asked, wait.response_timeout))
}

/// Waits for the future until then. What is ready needs no timer, and so no runtime.
pub(super) async fn until<F: Future>(then: Option<Instant>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let first = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx)));
    if let Poll::Ready(output) = first.await {
        return Some(output);
    }
    match then {
        Some(then) => timeout_at(then, future).await.ok(),
        None => Some(future.await),
    }
}
