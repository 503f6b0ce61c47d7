//! What connecting has checked, as events for those who look: `dlock doctor`, and logs at `debug`.

/// Tells that a check has passed, and what it has found: an event at `debug` with the target
/// `lock_core::check` and the field `check`.
macro_rules! passed {
    ($check:literal, $($found:tt)+) => {
        tracing::debug!(target: "lock_core::check", check = $check, $($found)+)
    };
}

pub(crate) use passed;
