//! Judges what several processes did with locks, from what they wrote down and nothing else.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;

/// One hold of one lock, by times of CLOCK_BOOTTIME in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Which lock.
    pub lock: String,
    /// When the acquire was called.
    pub asked: u64,
    /// When it had returned.
    pub granted: u64,
    /// When the release was called.
    pub released: u64,
    /// The fencing token of this hold.
    pub token: u64,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            lock,
            asked,
            granted,
            released,
            token,
        } = self;
        write!(f, "{lock} {asked} {granted} {released} {token}")
    }
}

impl FromStr for Hold {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let unreadable = || format!("not a hold: `{line}`");
        let fields: Vec<_> = line.split(' ').collect();
        let [lock, numbers @ ..] = fields.as_slice() else {
            return Err(unreadable());
        };
        let numbers: Result<Vec<u64>, _> = numbers.iter().map(|number| number.parse()).collect();
        let Ok([asked, granted, released, token]) = numbers.as_deref() else {
            return Err(unreadable());
        };
        let (asked, granted, released, token) = (*asked, *granted, *released, *token);
        Ok(Self {
            lock: (*lock).to_owned(),
            asked,
            granted,
            released,
            token,
        })
    }
}

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Two were inside at once.
    Overlap(Hold, Hold),
    /// The later of two holders has no greater token.
    TokenOrder(Hold, Hold),
    /// Two holders have one token.
    TokenTwice(Hold),
}

/// All violations in a history, whatever its order.
#[must_use]
pub fn judge(history: &[Hold]) -> Vec<Violation> {
    let mut locks: BTreeMap<&str, Vec<&Hold>> = BTreeMap::new();
    for hold in history {
        locks.entry(&hold.lock).or_default().push(hold);
    }
    let mut violations = Vec::new();
    for holds in locks.values_mut() {
        exclusion(holds, &mut violations);
        token_order(holds, &mut violations);
    }
    violations
}

/// The times from the end of each acquire to the call of its release are disjoint.
fn exclusion(holds: &mut [&Hold], violations: &mut Vec<Violation>) {
    holds.sort_by_key(|hold| hold.granted);
    let mut longest: Option<&Hold> = None;
    for hold in holds {
        if let Some(before) = longest.filter(|before| before.released > hold.granted) {
            violations.push(Violation::Overlap(before.clone(), (*hold).clone()));
        }
        if longest.is_none_or(|before| before.released < hold.released) {
            longest = Some(hold);
        }
    }
}

/// Whoever asked after another was granted has the greater token; no two have the same.
fn token_order(holds: &mut [&Hold], violations: &mut Vec<Violation>) {
    let mut seen = HashSet::new();
    let twice = holds.iter().filter(|hold| !seen.insert(hold.token));
    violations.extend(twice.map(|hold| Violation::TokenTwice((*hold).clone())));

    let mut by_grant: Vec<&Hold> = holds.to_vec();
    by_grant.sort_by_key(|hold| hold.granted);
    holds.sort_by_key(|hold| hold.asked);
    let mut granted = by_grant.into_iter().peekable();
    let mut newest: Option<&Hold> = None;
    for hold in holds {
        while let Some(before) = granted.next_if(|before| before.granted < hold.asked) {
            newest = newest
                .filter(|newest| newest.token >= before.token)
                .or(Some(before));
        }
        if let Some(before) = newest.filter(|before| before.token > hold.token) {
            violations.push(Violation::TokenOrder(before.clone(), (*hold).clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(asked: u64, granted: u64, released: u64, token: u64) -> Hold {
        Hold {
            lock: "a:b:c".to_owned(),
            asked,
            granted,
            released,
            token,
        }
    }

    #[test]
    fn a_history_in_order_is_clean() {
        let mut other = hold(0, 1, 99, 1);
        other.lock.push('d');
        let history = [hold(0, 1, 5, 1), hold(0, 6, 8, 3), hold(2, 8, 9, 4), other];
        assert_eq!(judge(&history), []);
    }

    #[test]
    fn two_inside_at_once_are_found_also_around_a_short_one() {
        let history = [
            hold(0, 1, 10, 1),
            hold(0, 11, 20, 2),
            hold(0, 12, 13, 3),
            hold(0, 19, 21, 4),
        ];
        let overlaps = judge(&history);
        assert_eq!(overlaps.len(), 2, "{overlaps:?}");
        assert!(overlaps.contains(&Violation::Overlap(history[1].clone(), history[3].clone())));
    }

    #[test]
    fn a_token_that_goes_back_is_found() {
        let history = [hold(0, 1, 2, 7), hold(3, 4, 5, 9), hold(6, 7, 8, 8)];
        assert_eq!(
            judge(&history),
            [Violation::TokenOrder(
                history[1].clone(),
                history[2].clone()
            )]
        );
        // One who had asked before the other was granted may have the smaller one.
        assert_eq!(judge(&[hold(0, 6, 7, 1), hold(0, 1, 2, 9)]), []);
    }

    #[test]
    fn a_token_that_is_used_twice_is_found() {
        let history = [hold(0, 1, 2, 7), hold(0, 4, 5, 7)];
        assert_eq!(judge(&history), [Violation::TokenTwice(history[1].clone())]);
    }

    #[test]
    fn a_hold_reads_as_it_was_written() {
        let hold = hold(1, 2, 3, u64::MAX);
        assert_eq!(hold.to_string().parse(), Ok(hold));
        assert!("a:b:c 1 2 3".parse::<Hold>().is_err());
        assert!("a:b:c 1 2 3 4 5".parse::<Hold>().is_err());
    }
}
