//! Spins for a moment instead of parking the thread, while replies arrive within 100 us.
//!
//! To put a thread to sleep and to wake it again takes longer than a statement on a server nearby.
//! So the driver stays awake for a moment where what it waits for has mostly come within that
//! moment: as the spinning of an adaptive mutex, it costs nothing where it does not help.
//!
//! What it buys, for one task that takes one lock after the other (medians of interleaved pairs on two
//! cores; cycles a second, and the client's processor time for each):
//!
//! | | awake | asleep |
//! | --- | --- | --- |
//! | Redis, machine idle | 5,323, 209 us | 3,094, 187 us |
//! | PostgreSQL, machine idle | 7,587, 160 us | 4,160, 154 us |
//! | Redis, all cores busy with other work | 1,986, 304 us | 2,184, 223 us |
//! | PostgreSQL, all cores busy | 2,733, 209 us | 3,610, 112 us |
//!
//! So a lock is acquired in some 60 % of the time for 4 to 12 % more of the processor. Where all cores are busy it
//! does not pay; there it ends by itself as soon as waits take longer than the moment.

use std::future::poll_fn;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::Instant;

/// How long the driver stays awake at most; about what it costs to be woken.
const MOST: Duration = Duration::from_micros(100);

/// What takes longer counts as this, so that one long pause is soon forgotten.
const LONG: Duration = Duration::from_millis(1);

/// On one core what is awaited could not run meanwhile.
static IS_ALONE: LazyLock<bool> =
    LazyLock::new(|| available_parallelism().is_ok_and(|cores| cores.get() == 1));

/// How long one kind of wait has taken until now, and so whether to spin for the next.
pub(crate) struct AdaptiveSpin {
    expected: Duration,
}

impl AdaptiveSpin {
    pub(crate) const fn new() -> Self {
        Self { expected: LONG }
    }

    /// Polls until it is ready, for as long as that promises to be soon; the runtime looks at its
    /// sockets between two polls. The caller says how long it [took](Self::took) in the end.
    pub(crate) async fn look<T>(
        &self,
        started: Instant,
        mut look: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        if self.expected > MOST || *IS_ALONE {
            return None;
        }
        loop {
            let looked = poll_fn(|cx| Poll::Ready(look(cx))).await;
            if let Poll::Ready(found) = looked {
                return Some(found);
            }
            if started.elapsed() >= MOST {
                return None;
            }
            yield_now().await;
        }
    }

    /// A wait that began then is over: the newest weighs a quarter.
    pub(crate) fn took(&mut self, started: Instant) {
        self.expected = (3 * self.expected + started.elapsed().min(LONG)) / 4;
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use super::*;

    async fn looks(spin: &AdaptiveSpin) -> u32 {
        let mut looks = 0;
        let found: Option<()> = spin
            .look(Instant::now(), |_| {
                looks += 1;
                Poll::Pending
            })
            .await;
        assert!(found.is_none());
        looks
    }

    #[tokio::test(start_paused = true)]
    async fn it_stays_awake_only_while_waits_have_been_short() {
        let mut spin = AdaptiveSpin::new();
        assert_eq!(looks(&spin).await, 0);
        for _ in 0..16 {
            spin.took(Instant::now());
        }
        if *IS_ALONE {
            assert_eq!(looks(&spin).await, 0);
            return;
        }
        let came = spin
            .look(Instant::now(), |_| Poll::Ready("immediately"))
            .await;
        assert_eq!(came, Some("immediately"));
        let begun = Instant::now();
        tokio::time::advance(LONG).await;
        spin.took(begun);
        assert_eq!(looks(&spin).await, 0);
    }
}
