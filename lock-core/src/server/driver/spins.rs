//! Whether the driver stays awake for what it waits for.

use crate::server::AdaptiveSpin;

/// How long waits have taken until now.
///
/// The driver stays awake for a moment where one task takes one lock after the other: its time is that of
/// the wake-ups. Where many do, the processors are needed for them and the server, and a batch grows while
/// the driver sleeps.
pub(super) struct Spins {
    /// While nothing is under way.
    with_callers: AdaptiveSpin,
    with_servers: AdaptiveSpin,
    /// Whether the last request was for one lock, with no other on its way.
    was_alone: bool,
}

impl Spins {
    pub(super) const fn new() -> Self {
        Self {
            with_callers: AdaptiveSpin::new(),
            with_servers: AdaptiveSpin::new(),
            was_alone: false,
        }
    }

    pub(super) const fn sent(&mut self, is_alone: bool) {
        self.was_alone = is_alone;
    }

    /// That of the next wait, if the driver is to stay awake.
    pub(super) const fn next(&mut self, is_idle: bool) -> Option<&mut AdaptiveSpin> {
        if !self.was_alone {
            return None;
        }
        Some(match is_idle {
            true => &mut self.with_callers,
            false => &mut self.with_servers,
        })
    }
}
