//! The future that completes when a lock is lost.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::Hold;
use crate::backend::{Granted, Held};
use crate::lease::{Lease, LossReason, Registration};

/// Completes with the reason when a lock is lost; see [`LockGuard::lost`](crate::LockGuard::lost).
#[must_use = "futures do nothing unless polled"]
pub struct Lost {
    held: Granted,
    listener: Listener,
}

impl Lost {
    pub(super) fn new(held: Granted) -> Self {
        Self {
            held,
            listener: Listener::default(),
        }
    }

    /// Whatever the task has done already in this poll: what is protected stops without delay.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<LossReason> {
        self.listener.poll(&self.held, cx)
    }
}

impl Future for Lost {
    type Output = LossReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LossReason> {
        let coop = ready!(coop::poll_proceed(cx));
        let reason = ready!(self.poll_lost(cx));
        coop.made_progress();
        Poll::Ready(reason)
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        self.listener.leave(&self.held);
    }
}

impl fmt::Debug for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lost")
            .field("hold", &self.held.hold)
            .finish_non_exhaustive()
    }
}

/// Forfeits a hold once it is lost. It does not keep the hold alive.
pub(super) fn watch(held: &Granted) -> impl Future<Output = ()> + Send + use<> {
    let mut watch = Watch {
        held: Arc::downgrade(held),
        lease: held.hold.lease.clone(),
        listener: Listener::default(),
    };
    async move {
        let lost = poll_fn(|cx| match watch.held.upgrade() {
            Some(held) => watch
                .listener
                .poll(&held, cx)
                .map(|reason| Some((held, reason))),
            None => Poll::Ready(None),
        });
        if let Some((held, reason)) = lost.await {
            held.forfeit(reason).await;
        }
    }
}

/// Completes when a lease ends.
pub(super) async fn ended(lease: Lease) {
    let mut place = Place {
        lease,
        registration: Registration::default(),
    };
    loop {
        let Place {
            lease,
            registration,
        } = &mut place;
        let look = lease.next_look();
        let lost = poll_fn(|cx| lease.poll_lost(registration, cx.waker()));
        match look {
            None => {
                lost.await;
                return;
            }
            Some(look) if timeout(look, lost).await.is_ok() => return,
            Some(_) => {}
        }
    }
}

/// The place of a task that waits for the end of a lease.
struct Place {
    lease: Lease,
    registration: Registration,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lease.unregister(&mut self.registration);
    }
}

struct Watch {
    held: Weak<Held>,
    /// Outlives the hold where others share it.
    lease: Lease,
    listener: Listener,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.lease.unregister(&mut self.listener.lease);
    }
}

/// The place of a task that waits for a loss.
#[derive(Default)]
struct Listener {
    own: Registration,
    lease: Registration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Listener {
    fn poll(&mut self, held: &Held, cx: &mut Context<'_>) -> Poll<LossReason> {
        let hold = &held.hold;
        loop {
            if hold.is_over() {
                return Poll::Pending;
            }
            if let Some(reason) = held.loss() {
                return Poll::Ready(reason);
            }
            let own = hold.latch.poll_set(&mut self.own, cx.waker());
            let lease = hold.lease.poll_lost(&mut self.lease, cx.waker());
            if own.is_ready() || lease.is_ready() {
                continue;
            }
            if self.timer.is_none() {
                self.timer = next_look(hold).map(|look| Box::pin(sleep(look)));
            }
            match &mut self.timer {
                Some(timer) => ready!(timer.as_mut().poll(cx)),
                None => return Poll::Pending,
            }
            self.timer = None;
        }
    }

    fn leave(&mut self, held: &Held) {
        held.hold.latch.unregister(&mut self.own);
        held.hold.lease.unregister(&mut self.lease);
    }
}

/// When to look at the clocks again.
pub(super) fn next_look(hold: &Hold) -> Option<Duration> {
    let until = hold.until.get();
    let max_hold = until.map(|until| until.saturating_duration_since(Instant::now()));
    earlier(hold.lease.next_look(), max_hold)
}

/// Of times that may not be there, the first.
pub(super) fn earlier<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    one.into_iter().chain(other).min()
}
