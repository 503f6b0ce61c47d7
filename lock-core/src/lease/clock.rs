//! Clocks that leases are measured on.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A clock that only goes forward, from a start of its own.
pub trait Clock: Send + Sync + 'static {
    /// Time since the start of this clock.
    fn now(&self) -> Duration;
}

/// The clock of the system that also runs while the machine sleeps, so that a lease which ended meanwhile
/// has ended. No guest clock sees that a virtual machine was paused or restored.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

/// CLOCK_BOOTTIME on Linux, whose CLOCK_MONOTONIC stands still in a sleep; that of Apple does not.
#[cfg(not(target_vendor = "apple"))]
const BOOT: ClockId = ClockId::Boottime;
#[cfg(target_vendor = "apple")]
const BOOT: ClockId = ClockId::Monotonic;

impl Clock for BootClock {
    fn now(&self) -> Duration {
        let now = clock_gettime(BOOT);
        // Never negative: it counts from the boot.
        Duration::new(
            now.tv_sec.unsigned_abs(),
            u32::try_from(now.tv_nsec).unwrap_or_default(),
        )
    }
}

/// tokio's clock, for tests: it stands still under `tokio::time::pause` and moves with
/// `tokio::time::advance`.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock(tokio::time::Instant);

impl TokioClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
