//! What connecting has checked, and why a store grants nothing, as events for those who look: `dlock`, and logs at `debug`.

#[cfg(any(feature = "postgres", feature = "redis"))]
use std::time::Duration;

/// Tells that a check has passed, and what it has found: an event at `debug` with the target
/// `lock_core::check` and the field `check`.
macro_rules! passed {
    ($check:literal, $($found:tt)+) => {
        tracing::debug!(target: "lock_core::check", check = $check, $($found)+)
    };
}

pub(crate) use passed;

/// Tells that the store grants no lock for so long, since it may have forgotten who holds what: an event at `debug`
/// with the target `lock_core::quarantine` and the field `left_ms`.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) fn grants_nothing_for(left: Duration) {
    let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(
        target: "lock_core::quarantine",
        left_ms,
        "the store grants no lock until those that it may have forgotten have expired"
    );
}
