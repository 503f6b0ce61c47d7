//! The orders that locks were taken in.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::Opposite;
use crate::LockName;

/// So many orders are known; of programs that have more, the first are watched.
const MAX_ORDERS: usize = 4_096;

/// Pairs of locks, by hashes: one after the other. Locks of one kind, `order:process`, are one, unless
/// both are of it: then each is itself.
#[derive(Default)]
pub(super) struct Orders {
    seen: HashSet<(u64, u64)>,
    /// Of locks that were waited for by who held them.
    deadlocks: HashSet<u64>,
    hasher: RandomState,
}

impl Orders {
    /// Notes that `second` was asked for while `first` was held. Gives both when this is new and the
    /// opposite is not: once for each pair.
    pub(super) fn note(&mut self, first: &LockName, second: &LockName) -> Option<Opposite> {
        let (mut one, mut other) = (kind(first), kind(second));
        if one == other {
            (one, other) = (first.as_str(), second.as_str());
        }
        if one == other || self.seen.len() >= MAX_ORDERS {
            return None;
        }
        let (one, other) = (self.hasher.hash_one(one), self.hasher.hash_one(other));
        let is_new = self.seen.insert((one, other));
        (is_new && self.seen.contains(&(other, one)))
            .then(|| Opposite(first.clone(), second.clone()))
    }

    /// Notes that a lock was waited for by who held it; whether that is the first of its kind.
    pub(super) fn note_deadlock(&mut self, name: &LockName) -> bool {
        let hash = self.hasher.hash_one(kind(name));
        self.deadlocks.len() < MAX_ORDERS && self.deadlocks.insert(hash)
    }
}

/// `entity:operation`, or the whole name of a job: what names have in common whichever way they were
/// made.
fn kind(name: &LockName) -> &str {
    let name = name.as_str();
    let mut colons = name.match_indices(':');
    colons
        .nth(1)
        .map_or(name, |(second_colon, _)| &name[..second_colon])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> LockName {
        text.parse().expect("a name")
    }

    #[test]
    fn kinds_are_told_apart_and_one_kind_by_its_values() {
        let mut orders = Orders::default();
        let mut is_opposite = |one, other| orders.note(&name(one), &name(other)).is_some();
        assert!(!is_opposite("order:ship:1", "stock:take:1"));
        assert!(!is_opposite("order:ship:2", "stock:take:2"));
        assert!(is_opposite("stock:take:3", "order:ship:4"));
        assert!(!is_opposite("stock:take:3", "order:ship:4"), "once");
        assert!(!is_opposite("order:pay:1", "stock:take:1"));
        assert!(!is_opposite("job:one", "job:two"));
        assert!(is_opposite("job:two", "job:one"));
        assert!(!is_opposite("account:move:1", "account:move:2"));
        assert!(!is_opposite("account:move:2", "account:move:3"));
        assert!(!is_opposite("account:move:3", "account:move:1"));
        assert!(is_opposite("account:move:2", "account:move:1"));
        assert!(!is_opposite("account:move:1", "account:move:1"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut orders = Orders::default();
        for number in 0..2 * MAX_ORDERS {
            let one = name(&format!("order:ship-{number}:1"));
            let _ = orders.note(&one, &name("stock:take:1"));
            orders.note_deadlock(&one);
        }
        assert_eq!(orders.seen.len(), MAX_ORDERS);
        assert_eq!(orders.deadlocks.len(), MAX_ORDERS);
    }
}
