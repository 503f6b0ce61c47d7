//! Locks that were released here and are left to other processes for a moment.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::hand_over::HandOver;

/// By the names of lock files; used by callers and by the thread that watches the directory.
#[derive(Debug, Default)]
pub(super) struct HandOvers(Mutex<HandOver<Arc<str>>>);

impl HandOvers {
    /// The lock of this name is released, and another process waits for it.
    pub(super) fn begin(&self, name: &Arc<str>) {
        let now = now();
        self.with(|windows| {
            windows.forget_ended(now);
            windows.begin(Arc::clone(name), (), now);
        });
    }

    /// How long it is left to others.
    pub(super) fn remaining(&self, name: &str) -> Option<Duration> {
        let (until, ()) = self.with(|windows| windows.get(name))?;
        let left = until.saturating_duration_since(now());
        (!left.is_zero()).then_some(left)
    }

    /// Another process has taken it; whether it was left to others.
    pub(super) fn end(&self, name: &str) -> bool {
        self.with(|windows| windows.end(name))
    }

    fn with<T>(&self, run: impl FnOnce(&mut HandOver<Arc<str>>) -> T) -> T {
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The machine's time, also in the thread of a runtime whose clock is paused.
fn now() -> Instant {
    Instant::from_std(std::time::Instant::now())
}
