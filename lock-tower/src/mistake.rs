//! Mistakes of the set-up: an answer to each request, a line in the log for each mistake.

use std::sync::{Mutex, PoisonError};

use lock_core::LockError;

/// So many different mistakes are remembered; further ones are not logged.
const REMEMBERED: usize = 64;

/// The mistakes that were logged already.
#[derive(Debug)]
pub(crate) struct Mistakes(Mutex<Vec<String>>);

/// Those of rejections that handlers make: no layer knows them.
#[cfg(feature = "axum")]
pub(crate) static OF_HANDLERS: Mistakes = Mistakes::new();

impl Mistakes {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Logs a mistake the first time that it is seen.
    pub(crate) fn log(&self, error: &LockError) {
        let text = error.to_string();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() == REMEMBERED || known.contains(&text) {
            return;
        }
        // Outside the lock: a subscriber may do what it likes.
        known.push(text);
        drop(known);
        tracing::error!(%error, "requests are refused: a lock is set up wrongly");
    }
}

impl Default for Mistakes {
    fn default() -> Self {
        Self::new()
    }
}
