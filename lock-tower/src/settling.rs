//! A release that is waited for, within a bound.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lock_core::__private::{Repeated, Settle};
use tokio::time::{Sleep, sleep};

use crate::held::Owner;

/// How long a response waits for the release of its lock. A release that takes longer goes on in the
/// background: the client can meet its own lock then, and an answer at all is worth more.
const BOUND: Duration = Duration::from_secs(1);

/// Completes when the lock is released, or after [`BOUND`].
#[derive(Debug)]
pub(crate) struct Settling {
    settle: Option<Settle>,
    bound: Option<Pin<Box<Sleep>>>,
}

impl Settling {
    pub(crate) fn new(owner: Owner) -> Self {
        Self {
            settle: owner.settle(),
            bound: None,
        }
    }
}

impl Future for Settling {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(settle) = &mut self.settle else {
            return Poll::Ready(());
        };
        if Pin::new(settle).poll(cx).is_pending() {
            let bound = self.bound.get_or_insert_with(|| Box::pin(sleep(BOUND)));
            ready!(bound.as_mut().poll(cx));
            // In an outage each response waits in vain.
            static SLOW: Repeated = Repeated::new();
            SLOW.happened("", |times| {
                tracing::warn!(
                    times,
                    "a lock was not released in {BOUND:?}; its release goes on"
                );
            });
        }
        self.settle = None;
        Poll::Ready(())
    }
}
