//! Until when an acquire waits.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::LockPolicy;

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

    /// When an answer to a question that is asked now is waited for no longer: a whole exchange is
    /// allowed, within `wait + response_timeout` over all.
    pub(super) fn give_up(&self) -> Option<Instant> {
        let deadline = self.deadline?;
        let exchange = Instant::now() + self.response_timeout;
        Some(exchange.clamp(deadline, deadline + self.response_timeout))
    }
}

/// Waits for the future until then.
pub(super) async fn until<F: Future>(then: Option<Instant>, future: F) -> Option<F::Output> {
    match then {
        Some(then) => timeout_at(then, future).await.ok(),
        None => Some(future.await),
    }
}
