//! What the scripts answer.

use std::collections::HashMap;
use std::time::Duration;

use ::redis::Value;

use crate::redis::settings::LEASES;

/// What the script says of a server key that it does not believe.
pub(super) const BAD_NOTE: &str = "note";

/// What the script says of a slot whose master was another.
pub(super) const MOVED: &str = "moved";

/// What the script says of a lock that is held by what it has not written.
pub(super) const FOREIGN: &str = "foreign";

/// What the script that issues tokens says where the server key is of another server, or missing.
pub(super) const ANOTHER: &str = "another";

/// What the script says of a writer that has a place before readers now, and then after how long it asks again (ms).
const WAITS: &str = "waits ";

/// What is said of a token that no script of ours issues.
pub(super) const UNBELIEVABLE: &str = "a token that is far ahead of its clock";

/// How far a token is ahead of the server's time at most, in microseconds: as in the script, with the
/// longest lease.
const FURTHEST: u64 = 3 * 24 * 3600 * 1_000_000;

/// A token that comes from no script of ours would be the newest that is known for good.
pub(super) fn believable(answer: i64, time: u64) -> Result<i64, String> {
    if u64::try_from(answer).is_ok_and(|token| token > time.saturating_add(FURTHEST)) {
        return Err(UNBELIEVABLE.to_owned());
    }
    Ok(answer)
}

/// How long the server says that it takes; no lease and no quarantine takes longer than a day.
pub(super) fn pause(millis: i64) -> Duration {
    Duration::from_millis(millis.unsigned_abs()).min(*LEASES.end())
}

/// After how long a writer asks again that is refused and has a place before readers now.
pub(super) fn waits(answer: &Result<i64, String>) -> Option<Duration> {
    let after = answer.as_ref().err()?.strip_prefix(WAITS)?;
    Some(pause(after.parse().ok()?))
}

/// The answer to a batch: what it says of all, and of those locks that were not simply released or acquired.
pub(in crate::redis) struct Answers {
    /// The time of the server, in microseconds.
    pub(super) time: u64,
    /// What is left of the quarantine, in ms: below 0 where it may become less; or why nothing can be granted.
    pub(super) left: Result<i64, String>,
    /// Whether the clock of the server was put forward since it was last seen.
    pub(super) has_jumped: bool,
    /// Of each lock that was acquired.
    token: i64,
    /// By the place of the lock in the call, from 1. What was said last counts.
    said: HashMap<usize, Value>,
}

impl Answers {
    /// Reads the answer to a call for so many locks; `None` if no script answers that.
    pub(super) fn read(values: Vec<Value>, locks: usize) -> Option<Self> {
        let mut values = values.into_iter();
        let (Ok(time), left, Ok(token)) = (
            number(values.next()),
            number(values.next()),
            number(values.next()),
        ) else {
            return None;
        };
        let mut said = HashMap::new();
        while let Some(place) = values.next() {
            let Value::Int(place) = place else {
                return None;
            };
            let place = usize::try_from(place).ok()?;
            if !(1..=locks).contains(&place) {
                return None;
            }
            said.insert(place, values.next()?);
        }
        Some(Self {
            time: time.unsigned_abs(),
            left,
            has_jumped: false,
            token,
            said,
        })
    }

    /// What is said of the lock at this place, if it is to be released.
    pub(super) fn of_release(&mut self, place: usize) -> Result<i64, String> {
        self.said(place).unwrap_or(Ok(1))
    }

    /// What is said of the lock at this place, if it is to be acquired.
    pub(super) fn of_acquire(&mut self, place: usize) -> Result<i64, String> {
        self.said(place).unwrap_or(Ok(self.token))
    }

    fn said(&mut self, place: usize) -> Option<Result<i64, String>> {
        if self.said.is_empty() {
            return None;
        }
        Some(number(Some(self.said.remove(&place)?)))
    }
}

/// An answer for one lock.
pub(super) fn number(value: Option<Value>) -> Result<i64, String> {
    match value {
        Some(Value::Int(number)) => Ok(number),
        Some(Value::BulkString(text)) => Err(String::from_utf8_lossy(&text).into_owned()),
        _ => Err("an answer that is none".to_owned()),
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use super::*;

    fn ints(numbers: &[i64]) -> Vec<Value> {
        numbers.iter().copied().map(Value::Int).collect()
    }

    #[test]
    fn a_lock_of_which_nothing_is_said_has_what_it_asked_for() {
        let mut answers = Answers::read(ints(&[7, 0, 9]), 2).unwrap();
        assert_eq!((answers.time, &answers.left), (7, &Ok(0)));
        assert_eq!(answers.of_release(1), Ok(1));
        assert_eq!(answers.of_acquire(2), Ok(9));
    }

    #[test]
    fn what_is_said_last_of_a_lock_counts() {
        let mut values = ints(&[7, 0, 0, 2, 0, 1, 3]);
        values.extend([Value::Int(2), Value::BulkString(b"foreign".to_vec())]);
        let mut answers = Answers::read(values, 2).unwrap();
        assert_eq!(answers.of_release(1), Ok(3));
        assert_eq!(answers.of_acquire(2), Err("foreign".to_owned()));
    }

    #[test]
    fn an_answer_that_names_no_lock_of_the_call_means_nothing() {
        for wrong in [
            &[7, 0][..],
            &[7, 0, 9, 0, 1],
            &[7, 0, 9, 3, 1],
            &[7, 0, 9, -1, 1],
            &[7, 0, 9, 1],
        ] {
            assert!(Answers::read(ints(wrong), 2).is_none(), "{wrong:?}");
        }
        assert!(Answers::read(vec![Value::Int(7), Value::Int(0), Value::Nil], 2).is_none());
    }
}
