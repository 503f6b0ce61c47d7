//! Mistakes of the set-up: an answer to each request; in the log a line for each mistake, again every
//! few minutes for as long as requests meet it. Errors are compared by their text, which names what is to be changed.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::LockError;

/// So many different mistakes are remembered; further ones are not logged meanwhile.
const REMEMBERED: usize = 64;

/// How long after a line the same mistake is logged again.
const AGAIN_AFTER: Duration = Duration::from_secs(5 * 60);

/// The mistakes that were logged, and when.
#[doc(hidden)]
#[derive(Debug)]
pub struct Mistakes(Mutex<Vec<(String, Instant)>>);

/// Those that handlers return: no layer knows them.
static OF_HANDLERS: Mistakes = Mistakes::new();

impl Mistakes {
    /// Those that handlers return.
    #[must_use]
    pub fn of_handlers() -> &'static Self {
        &OF_HANDLERS
    }

    /// None was logged yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Logs a mistake, unless it was logged in the last minutes.
    pub fn log(&self, error: &LockError) {
        // Not under the lock: a subscriber may do what it likes.
        if self.is_due(error.to_string(), Instant::now()) {
            tracing::error!(%error, "requests are refused: a lock is set up wrongly");
        }
    }

    fn is_due(&self, text: String, now: Instant) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|(_, at)| now.saturating_duration_since(*at) < AGAIN_AFTER);
        if logged.len() == REMEMBERED || logged.iter().any(|(known, _)| *known == text) {
            return false;
        }
        logged.push((text, now));
        true
    }
}

impl Default for Mistakes {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_logged_again_after_some_minutes_and_not_before() {
        let (mistakes, start) = (Mistakes::new(), Instant::now());
        let due = |text: &str, after| mistakes.is_due(text.into(), start + after);
        assert!(due("POST /a", Duration::ZERO));
        assert!(due("POST /b", AGAIN_AFTER / 2));
        for after in [
            Duration::ZERO,
            AGAIN_AFTER / 2,
            AGAIN_AFTER - Duration::from_millis(1),
        ] {
            assert!(!due("POST /a", after));
        }
        assert!(due("POST /a", AGAIN_AFTER));
        assert!(!due("POST /b", AGAIN_AFTER));
        assert!(!due("POST /a", AGAIN_AFTER));
    }

    #[test]
    fn different_mistakes_do_not_flood_the_log_nor_silence_it_for_good() {
        let (mistakes, start) = (Mistakes::new(), Instant::now());
        let due = |number: usize, after| mistakes.is_due(number.to_string(), start + after);
        let logged = (0..1_000).filter(|number| due(*number, Duration::ZERO));
        assert_eq!(logged.count(), REMEMBERED);
        assert!(due(999, AGAIN_AFTER));
    }
}
