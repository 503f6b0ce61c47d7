//! Tries for waiters, and whom they are in the way of.
//!
//! A try for the waiters of a lock can be granted it when none of them is left: an earlier try has served them, or
//! they gave up. The lock is held for no caller then, until it is given back. A caller of this process that was refused
//! while such a try was on its way, or was being given back, may have been refused by it, and asks again: one that
//! does not wait would find a lock contended that is free.
//!
//! So it is with what the driver gives back by itself. A grant that a waiter was woken for, and did not take, is
//! released as those of callers are.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::server::leased::{LockKey, Owner};

/// What is not answered for longer excuses no refusal: its connection may be dead.
pub(super) const ANSWERED_WITHIN: Duration = Duration::from_millis(250);

/// All times are on CLOCK_BOOTTIME.
pub(super) struct Tries<K> {
    on_their_way: HashMap<K, Try>,
    /// Oldest first.
    strays: VecDeque<Stray<K>>,
}

struct Try {
    count: usize,
    /// When the last was sent.
    sent: Duration,
}

/// What a try was granted, or may have been, and gives back.
struct Stray<K> {
    key: K,
    owner: Owner,
    granted: Duration,
    /// When its release was answered.
    released: Option<Duration>,
}

impl<K: LockKey> Tries<K> {
    pub(super) fn new() -> Self {
        Self {
            on_their_way: HashMap::new(),
            strays: VecDeque::new(),
        }
    }

    /// A try is sent.
    pub(super) fn begin(&mut self, key: &K, now: Duration) {
        let tried = self.on_their_way.entry(key.clone());
        let tried = tried.or_insert(Try {
            count: 0,
            sent: now,
        });
        tried.count += 1;
        tried.sent = now;
    }

    /// A try has its answer, or will have none.
    pub(super) fn end(&mut self, key: &K) {
        if let Some(ended) = self.on_their_way.get_mut(key) {
            ended.count -= 1;
            if ended.count == 0 {
                self.on_their_way.remove(key);
            }
        }
    }

    /// What a try was granted, or may have been, is given back.
    pub(super) fn strayed(&mut self, key: &K, owner: Owner, now: Duration) {
        self.strays.push_back(Stray {
            key: key.clone(),
            owner,
            granted: now,
            released: None,
        });
    }

    /// Whether something is being given back, or was a moment ago: most releases need not look at a clock.
    pub(super) fn has_strays(&self) -> bool {
        !self.strays.is_empty()
    }

    /// A lock of this owner was released.
    pub(super) fn released(&mut self, owner: Owner, now: Duration) {
        let is_old = |stray: &mut Stray<K>| stray.granted + ANSWERED_WITHIN <= now;
        while self.strays.pop_front_if(is_old).is_some() {}
        let stray = (self.strays.iter_mut()).find(|stray| stray.owner == owner);
        if let Some(stray) = stray {
            stray.released.get_or_insert(now);
        }
    }

    /// Whether what was sent then and is refused now may have been refused by a try of this process.
    pub(super) fn may_have_refused(&self, key: &K, sent: Duration, now: Duration) -> bool {
        let is_recent = |since: Duration| now < since + ANSWERED_WITHIN;
        let tried = self.on_their_way.get(key);
        let mut strays = self.strays.iter();
        tried.is_some_and(|tried| is_recent(tried.sent))
            || strays.any(|stray| {
                let was_held = stray.released.is_none_or(|released| sent <= released);
                was_held && is_recent(stray.granted) && stray.key == *key
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::leased::Part;

    const KEY: u8 = 7;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(1_000 + millis)
    }

    fn owner(number: u64) -> Owner {
        Owner {
            connection: 1,
            number,
            part: Part::Whole,
        }
    }

    #[test]
    fn a_try_may_have_refused_whoever_was_refused_while_it_was_on_its_way() {
        let mut tries = Tries::new();
        assert!(!tries.may_have_refused(&KEY, at(0), at(1)));
        tries.begin(&KEY, at(0));
        tries.begin(&KEY, at(100));
        assert!(tries.may_have_refused(&KEY, at(0), at(349)));
        assert!(!tries.may_have_refused(&8, at(0), at(1)));
        assert!(!tries.may_have_refused(&KEY, at(0), at(350)), "it hangs");
        tries.end(&KEY);
        assert!(tries.may_have_refused(&KEY, at(0), at(101)), "one is left");
        tries.end(&KEY);
        assert!(!tries.may_have_refused(&KEY, at(0), at(101)));
    }

    #[test]
    fn what_was_granted_for_no_waiter_may_have_refused_whoever_asked_before_its_release() {
        let mut tries = Tries::new();
        tries.strayed(&KEY, owner(1), at(0));
        tries.strayed(&8, owner(2), at(0));
        tries.released(owner(3), at(1));
        assert!(tries.may_have_refused(&KEY, at(5), at(6)));
        tries.released(owner(1), at(5));
        assert!(tries.may_have_refused(&KEY, at(5), at(6)));
        assert!(!tries.may_have_refused(&KEY, at(6), at(7)), "it was free");
        assert!(!tries.may_have_refused(&8, at(0), at(250)), "it hangs");
        // Nothing is kept for those.
        tries.released(owner(3), at(250));
        assert!(!tries.has_strays());
    }
}
