//! What happens again and again, each time for itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::TOLD_EVERY;

/// So many different ones are counted; those whose last line is older than the pause make room for others.
const REMEMBERED: usize = 64;

/// Something without an end that is seen.
#[doc(hidden)]
#[derive(Debug)]
pub struct Repeated(Mutex<Option<HashMap<String, State>>>);

#[derive(Debug)]
struct State {
    told: Instant,
    /// How often it has happened since then.
    untold: u64,
}

impl Repeated {
    /// It has not happened yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// It has happened to this: writes a line where one is due, with how often it has since the last one,
    /// if more than this once.
    pub fn happened(&self, to: &str, line: impl FnOnce(Option<u64>)) {
        let now = Instant::now();
        let is_recent = |state: &State| now < state.told + TOLD_EVERY;
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let states_of = states.get_or_insert_default();
        let mut times = None;
        if let Some(state) = states_of.get_mut(to) {
            state.untold += 1;
            if is_recent(state) {
                return;
            }
            times = Some(state.untold).filter(|times| *times > 1);
        } else if states_of.len() >= REMEMBERED {
            states_of.retain(|_, state| is_recent(state));
            if states_of.len() >= REMEMBERED {
                return;
            }
        }
        let state = State {
            told: now,
            untold: 0,
        };
        states_of.insert(to.to_owned(), state);
        // The logger is the application's.
        drop(states);
        line(times);
    }
}

impl Default for Repeated {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_repeats_itself_is_told_every_few_seconds_with_a_count() {
        let (repeated, mut log) = (Repeated::new(), Vec::new());
        for _ in 0..10 {
            repeated.happened("one", |times| log.push(times));
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(log, [None, Some(5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn different_ones_are_told_each_and_no_more_than_are_remembered() {
        let (repeated, mut lines) = (Repeated::new(), 0);
        for number in 0..1_000 {
            repeated.happened(&number.to_string(), |_| lines += 1);
        }
        assert_eq!(lines, REMEMBERED);
        advance(TOLD_EVERY).await;
        repeated.happened("999", |_| lines += 1);
        assert_eq!(lines, REMEMBERED + 1);
    }
}
