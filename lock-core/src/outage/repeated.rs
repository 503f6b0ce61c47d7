//! What happens again and again, each time for itself.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::TOLD_EVERY;

/// Something without an end that is seen.
#[derive(Debug)]
pub(crate) struct Repeated(Mutex<State>);

#[derive(Debug)]
struct State {
    told: Option<Instant>,
    /// How often it has happened since then.
    untold: u64,
}

impl Repeated {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(State {
            told: None,
            untold: 0,
        }))
    }

    /// It has happened: writes a line where one is due, with how often it has since the last one, if more
    /// than this once.
    pub(crate) fn happened(&self, line: impl FnOnce(Option<u64>)) {
        let now = Instant::now();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.untold += 1;
        if state.told.is_some_and(|told| now < told + TOLD_EVERY) {
            return;
        }
        let times = (state.untold > 1).then_some(state.untold);
        *state = State {
            told: Some(now),
            untold: 0,
        };
        // The logger is the application's.
        drop(state);
        line(times);
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
            repeated.happened(|times| log.push(times));
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(log, [None, Some(5)]);
    }
}
