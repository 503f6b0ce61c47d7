//! The future that completes when a lock is lost.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::backend::Granted;
use crate::lease::{LossReason, Registration};

/// Completes with the reason when a lock is lost; see [`LockGuard::lost`](crate::LockGuard::lost).
#[must_use = "futures do nothing unless polled"]
pub struct Lost {
    held: Granted,
    own: Registration,
    lease: Registration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Lost {
    pub(super) fn new(held: Granted) -> Self {
        let (own, lease) = Default::default();
        Self {
            held,
            own,
            lease,
            timer: None,
        }
    }

    /// When to look at the clocks again.
    fn next_look(&self) -> Option<Duration> {
        let hold = &self.held.hold;
        let max_hold = hold
            .until
            .map(|until| until.saturating_duration_since(Instant::now()));
        match (hold.lease.next_look(), max_hold) {
            (Some(lease), Some(max_hold)) => Some(lease.min(max_hold)),
            (lease, max_hold) => lease.or(max_hold),
        }
    }
}

impl Future for Lost {
    type Output = LossReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LossReason> {
        let this = &mut *self;
        loop {
            if this.held.hold.is_over() {
                return Poll::Pending;
            }
            if let Some(reason) = this.held.loss() {
                return Poll::Ready(reason);
            }
            let hold = &this.held.hold;
            let own = hold.latch.poll_set(&mut this.own, cx.waker());
            let lease = hold.lease.poll_lost(&mut this.lease, cx.waker());
            if own.is_ready() || lease.is_ready() {
                continue;
            }
            if this.timer.is_none() {
                this.timer = this.next_look().map(|look| Box::pin(sleep(look)));
            }
            match &mut this.timer {
                Some(timer) => ready!(timer.as_mut().poll(cx)),
                None => return Poll::Pending,
            }
            this.timer = None;
        }
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        let hold = &self.held.hold;
        hold.latch.unregister(&mut self.own);
        hold.lease.unregister(&mut self.lease);
    }
}

impl fmt::Debug for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lost")
            .field("hold", &self.held.hold)
            .finish_non_exhaustive()
    }
}
