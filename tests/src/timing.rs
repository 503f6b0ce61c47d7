//! Time in tests.

use std::future::Future;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Longer than anything here takes on a busy machine.
const EVENTUALLY: Duration = Duration::from_secs(30);

/// Nanoseconds on CLOCK_BOOTTIME, which all processes of a machine share.
#[must_use]
pub fn boottime() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Returns when `holds` says so; panics, with `what`, when it does not within half a minute.
pub async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl FnMut() -> F) {
    eventually_within(EVENTUALLY, what, holds).await;
}

/// As [`eventually`], for what takes longer by its own rules.
pub(crate) async fn eventually_within<F: Future<Output = bool>>(
    bound: Duration,
    what: &str,
    mut holds: impl FnMut() -> F,
) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < bound, "this did not come true: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
