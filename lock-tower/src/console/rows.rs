//! What the rows of all tables have in common.

use std::time::Duration;

/// How many rows a table has at most.
pub(super) const SHOWN: usize = 200;

/// A time, as all are written.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
