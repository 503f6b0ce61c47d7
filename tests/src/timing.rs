//! Time in tests, on a machine that others use as well.

use std::future::Future;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinHandle;

/// Longer than anything here takes on a busy machine.
const EVENTUALLY: Duration = Duration::from_secs(30);

/// Nanoseconds on CLOCK_BOOTTIME, which all processes of a machine share.
#[must_use]
pub fn boottime() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Returns when `holds` says so; panics, with `what`, when it does not within half a minute.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let started = Instant::now();
    while !holds().await {
        assert!(
            started.elapsed() < EVENTUALLY,
            "this did not come true: {what}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How late the machine is by itself: a timer on the runtime of a test, and nothing else.
///
/// A bound such as "100 ms later at most" is for the library. On a machine that is busy with other
/// work a timer alone can be later than that, so that the bound counts from when it fired.
#[derive(Debug)]
pub struct Lateness {
    due: Instant,
    fired: JoinHandle<Instant>,
}

impl Lateness {
    /// Starts a timer over this duration.
    #[must_use]
    pub fn of(wait: Duration) -> Self {
        let due = Instant::now() + wait;
        let fired = tokio::spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            Instant::now()
        });
        Self { due, fired }
    }

    /// Checks that what has just ended did not end before the duration was over, and no more than
    /// `bound` after the timer.
    pub async fn check(self, bound: Duration) {
        let early = self.due.saturating_duration_since(Instant::now());
        assert!(early.is_zero(), "it ended {early:?} too early");
        self.at_most(bound).await;
    }

    /// Checks that what has just ended did so no more than `bound` after the timer.
    pub async fn at_most(self, bound: Duration) {
        let ended = Instant::now();
        let late = ended.saturating_duration_since(self.fired.await.unwrap());
        assert!(
            late <= bound,
            "it ended {late:?} after its time, and {bound:?} are allowed"
        );
    }
}
