//! Credentials that a server has refused are not shown to it again and again: it may lock the user out.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::LockError;

/// Between logins with the same credentials: the first pause, which doubles up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// What was refused, by the place of the server.
pub(crate) struct Refusals<W>(Mutex<HashMap<String, Refusal<W>>>);

struct Refusal<W> {
    with: W,
    error: LockError,
    until: Instant,
    pause: Duration,
}

impl<W> Default for Refusals<W> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<W: PartialEq> Refusals<W> {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Refusal<W>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to log in with these.
    ///
    /// # Errors
    ///
    /// That of the last login with the same ones, where that was a moment ago.
    pub(crate) fn check(&self, place: &str, with: &W) -> Result<(), LockError> {
        match self.all().get(place) {
            Some(last) if last.with == *with && Instant::now() < last.until => {
                Err(last.error.duplicate())
            }
            _ => Ok(()),
        }
    }

    /// Keeps what came of a login with these: `is_refused` tells whether an error is a refusal of them, and
    /// `explained` adds to that where they came from.
    ///
    /// # Errors
    ///
    /// That of the login.
    pub(crate) fn settle<T>(
        &self,
        place: &str,
        with: W,
        opened: Result<T, LockError>,
        is_refused: impl FnOnce(&LockError) -> bool,
        explained: impl FnOnce(LockError) -> LockError,
    ) -> Result<T, LockError> {
        opened.inspect(|_| self.accepted(place)).map_err(|error| {
            if !is_refused(&error) {
                return error;
            }
            let error = explained(error);
            self.refused(place, with, &error);
            error
        })
    }

    /// The server has refused these, with this error.
    fn refused(&self, place: &str, with: W, error: &LockError) {
        let mut all = self.all();
        let last = all.get(place).filter(|last| last.with == with);
        let pause = last.map_or(PAUSES.0, |last| (last.pause * 2).min(PAUSES.1));
        let refusal = Refusal {
            with,
            error: error.duplicate(),
            until: Instant::now() + pause,
            pause,
        };
        all.insert(place.to_owned(), refusal);
    }

    /// The server lets us in.
    fn accepted(&self, place: &str) {
        self.all().remove(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_not_shown_again_for_a_while_and_others_are() {
        let refusals = Refusals::default();
        assert!(refusals.check("a", &1).is_ok());
        refusals.refused("a", 1, &LockError::misconfigured("wrong"));
        let again = refusals.check("a", &1).unwrap_err();
        assert!(again.is_misconfigured() && again.to_string().contains("wrong"));
        assert!(refusals.check("a", &2).is_ok() && refusals.check("b", &1).is_ok());
        refusals.accepted("a");
        assert!(refusals.check("a", &1).is_ok());
    }

    #[test]
    fn pauses_grow_up_to_ten_seconds_and_begin_anew_with_other_credentials() {
        let refusals = Refusals::default();
        let pauses: Vec<_> = [1, 1, 1, 1, 1, 1, 2]
            .into_iter()
            .map(|with| {
                refusals.refused("a", with, &LockError::misconfigured("wrong"));
                refusals.all()["a"].pause.as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10, 1]);
    }
}
