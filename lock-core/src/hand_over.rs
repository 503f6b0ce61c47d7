//! After a release, leaves the lock for a moment to waiters elsewhere.
//!
//! The queue of a process with many waiters sends its next try right after a release. A waiter of another
//! process has yet to be woken, and would lose every race. So a release that finds such a waiter begins a
//! short window, in which tries of the lock from here are refused or put off. It costs this much where
//! the other waiter has left meanwhile.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// How long another waiter has to be woken and to try.
pub(crate) const HAND_OVER: Duration = Duration::from_millis(5);

/// The windows that were begun, by lock, each with what it is known for.
#[derive(Debug)]
pub(crate) struct HandOver<K, W = ()> {
    windows: HashMap<K, (Instant, W)>,
    /// The same by their ends: all are equally long, so the first to begin is the first to end. One that
    /// was ended early, or begun anew, is in it still.
    in_order: VecDeque<(Instant, K)>,
}

impl<K, W> Default for HandOver<K, W> {
    fn default() -> Self {
        Self {
            windows: HashMap::new(),
            in_order: VecDeque::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, W: Copy> HandOver<K, W> {
    /// The lock was released, and is awaited elsewhere.
    pub(crate) fn begin(&mut self, key: K, what: W, now: Instant) {
        let until = now + HAND_OVER;
        self.windows.insert(key.clone(), (until, what));
        self.in_order.push_back((until, key));
    }

    /// Until when the lock is left to others: also a time that is over, as long as the window was not
    /// [taken](Self::take_ended).
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<(Instant, W)>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.windows.get(key).copied()
    }

    /// The lock is left to others no longer; whether it was.
    #[cfg(any(feature = "memory", feature = "file"))]
    pub(crate) fn end<Q>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.windows.remove(key).is_some()
    }

    /// A lock whose window has ended, each once.
    pub(crate) fn take_ended(&mut self, now: Instant) -> Option<K> {
        while let Some((until, key)) = self.in_order.pop_front_if(|(until, _)| *until <= now) {
            // Not if it was ended, or begun anew.
            if self.windows.get(&key).is_some_and(|(end, _)| *end == until) {
                self.windows.remove(&key);
                return Some(key);
            }
        }
        None
    }

    /// Takes all that have ended.
    pub(crate) fn forget_ended(&mut self, now: Instant) {
        while self.take_ended(now).is_some() {}
    }

    /// When there may be one to take.
    #[cfg(feature = "postgres")]
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.in_order.front().map(|(until, _)| *until)
    }

    /// Ends all windows.
    #[cfg(feature = "postgres")]
    pub(crate) fn clear(&mut self) {
        self.windows.clear();
        self.in_order.clear();
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_for_its_lock_and_ends_by_itself() {
        let (mut windows, start) = (HandOver::default(), Instant::now());
        windows.begin("a", 7, start);
        assert_eq!(windows.get("a"), Some((start + HAND_OVER, 7)));
        assert_eq!(windows.get("b"), None);
        assert_eq!(windows.take_ended(start), None);
        assert_eq!(windows.take_ended(start + HAND_OVER), Some("a"));
        assert_eq!(windows.get("a"), None);
    }

    #[test]
    fn a_window_that_was_begun_anew_ends_once() {
        let (mut windows, start) = (HandOver::default(), Instant::now());
        windows.begin("a", (), start);
        windows.begin("a", (), start + HAND_OVER / 2);
        assert_eq!(windows.take_ended(start + HAND_OVER), None);
        assert_eq!(windows.take_ended(start + 2 * HAND_OVER), Some("a"));
        assert_eq!(windows.take_ended(start + 2 * HAND_OVER), None);
    }

    #[cfg(any(feature = "memory", feature = "file"))]
    #[test]
    fn a_window_is_ended_once() {
        let (mut windows, start) = (HandOver::default(), Instant::now());
        windows.begin("a", (), start);
        assert!(!windows.end("b"));
        assert!(windows.end("a") && !windows.end("a"));
        windows.forget_ended(start + HAND_OVER);
        assert!(windows.in_order.is_empty());
    }
}
