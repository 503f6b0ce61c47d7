//! Tries for waiters, and what they are in the way of.
//!
//! A try for the waiters of a lock can be granted it when none of them is left: an earlier try has served them, or
//! they gave up. The lock is held for no caller then, until it is given back. So
//!
//! - one try of a lock is on its way at a time: a second could be granted it after the first was released. What wakes
//!   the waiters meanwhile is tried for after it;
//! - a caller that was refused while such a try was on its way or was being given back may have been refused by it, and
//!   asks again. Without that, one that does not wait would find a lock contended that is free.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::server::leased::{LockKey, Owner};

/// What is not answered for longer holds up no other try, and excuses no refusal: its connection may be dead.
pub(super) const ANSWERED_WITHIN: Duration = Duration::from_millis(250);

/// All times are on CLOCK_BOOTTIME.
pub(super) struct Tries<K> {
    on_their_way: HashMap<K, Try>,
    /// Oldest first.
    strays: VecDeque<Stray<K>>,
}

struct Try {
    /// More than one where the first was not answered in time.
    count: usize,
    /// When the last was sent.
    sent: Duration,
    is_woken: bool,
}

/// What a try was granted that no waiter was left for.
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

    /// Whether a try can be sent now. One that cannot is made up for after that which is on its way.
    pub(super) fn begin(&mut self, key: &K, now: Duration) -> bool {
        match self.on_their_way.entry(key.clone()) {
            Entry::Occupied(mut entry) => {
                let before = entry.get_mut();
                let can_be = before.sent + ANSWERED_WITHIN <= now;
                if can_be {
                    before.count += 1;
                    before.sent = now;
                } else {
                    before.is_woken = true;
                }
                can_be
            }
            Entry::Vacant(entry) => {
                entry.insert(Try {
                    count: 1,
                    sent: now,
                    is_woken: false,
                });
                true
            }
        }
    }

    /// A try has its answer, or will have none; whether the waiters were woken since it was sent.
    pub(super) fn end(&mut self, key: &K) -> bool {
        let Some(ended) = self.on_their_way.get_mut(key) else {
            return false;
        };
        ended.count -= 1;
        let is_woken = std::mem::take(&mut ended.is_woken);
        if ended.count == 0 {
            self.on_their_way.remove(key);
        }
        is_woken
    }

    /// A try was granted the lock for no waiter, and gives it back.
    pub(super) fn strayed(&mut self, key: &K, owner: Owner, now: Duration) {
        let is_old = |stray: &mut Stray<K>| stray.granted + ANSWERED_WITHIN <= now;
        while self.strays.pop_front_if(is_old).is_some() {}
        self.strays.push_back(Stray {
            key: key.clone(),
            owner,
            granted: now,
            released: None,
        });
    }

    pub(super) fn released(&mut self, owner: Owner, now: Duration) {
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
    fn one_try_is_on_its_way_at_a_time_and_what_wakes_meanwhile_is_tried_for_after_it() {
        let mut tries = Tries::new();
        assert!(tries.begin(&KEY, at(0)) && tries.begin(&8, at(0)));
        assert!(!tries.begin(&KEY, at(1)) && !tries.begin(&KEY, at(2)));
        assert!(tries.end(&KEY) && !tries.end(&8), "one of them was woken");
        assert!(tries.begin(&KEY, at(3)));
        assert!(!tries.end(&KEY), "not since it was sent");
    }

    #[test]
    fn a_try_without_an_answer_holds_up_no_other_for_long() {
        let mut tries = Tries::new();
        assert!(tries.begin(&KEY, at(0)) && tries.begin(&KEY, at(250)));
        assert!(!tries.begin(&KEY, at(251)));
        assert!(tries.end(&KEY) && !tries.begin(&KEY, at(252)));
        assert!(tries.end(&KEY) && tries.begin(&KEY, at(253)));
    }

    #[test]
    fn a_try_may_have_refused_whoever_was_refused_while_it_was_on_its_way() {
        let mut tries = Tries::new();
        assert!(!tries.may_have_refused(&KEY, at(0), at(1)));
        tries.begin(&KEY, at(0));
        assert!(tries.may_have_refused(&KEY, at(0), at(1)));
        assert!(!tries.may_have_refused(&8, at(0), at(1)));
        assert!(!tries.may_have_refused(&KEY, at(0), at(250)), "it hangs");
        tries.end(&KEY);
        assert!(!tries.may_have_refused(&KEY, at(0), at(1)));
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
        tries.strayed(&9, owner(4), at(250));
        assert_eq!(tries.strays.len(), 1);
    }
}
