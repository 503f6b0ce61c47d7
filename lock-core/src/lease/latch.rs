//! A loss: set once, seen by all, for good.
//!
//! A `CancellationToken` for each lease would do as well; it allocates for each hold whose loss is awaited, has no room for the
//! reason, and cannot be modelled here in every order of events.

use std::collections::BTreeMap;
use std::mem;
use std::task::{Poll, Waker};

use super::LossReason;
use crate::panics::wake;
use crate::sync::{AtomicU8, Mutex, Ordering, lock};

/// No reason yet.
const UNSET: u8 = 0;

/// Where a waiter's waker is kept; one per waiter, from its first poll to its drop.
#[derive(Debug, Default)]
pub(crate) struct Registration(Option<u64>);

/// A latch that goes from unset to one [`LossReason`] and stays.
///
/// No wake-up is missed: `set` stores the reason and then takes the lock, `poll_set` takes the lock
/// and then reads the reason. Whichever has the lock first, either the reader sees the reason or the
/// setter sees the waker.
pub(crate) struct Latch {
    reason: AtomicU8,
    wakers: Mutex<Wakers>,
}

/// Most latches have one waiter, which costs no allocation.
#[derive(Default)]
struct Wakers {
    next: u64,
    first: Option<(u64, Waker)>,
    more: BTreeMap<u64, Waker>,
}

impl Latch {
    pub(crate) fn new() -> Self {
        Self {
            reason: AtomicU8::new(UNSET),
            wakers: Mutex::new(Wakers::default()),
        }
    }

    /// Why the latch was set, if it was.
    pub(crate) fn get(&self) -> Option<LossReason> {
        LossReason::from_code(self.reason.load(Ordering::Acquire))
    }

    /// Sets the latch and wakes all waiters; whether this call was the first.
    pub(crate) fn set(&self, reason: LossReason) -> bool {
        let first = self
            .reason
            .compare_exchange(UNSET, reason as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if first {
            let wakers = mem::take(&mut *lock(&self.wakers));
            // Outside the lock: a waker may run what it likes.
            wakers.first.into_iter().for_each(|(_, waker)| wake(waker));
            wakers.more.into_values().for_each(wake);
        }
        first
    }

    /// Ready once the latch is set; else `waker` is woken then.
    pub(crate) fn poll_set(
        &self,
        registration: &mut Registration,
        waker: &Waker,
    ) -> Poll<LossReason> {
        if let Some(reason) = self.get() {
            return Poll::Ready(reason);
        }
        let mut wakers = lock(&self.wakers);
        if let Some(reason) = self.get() {
            return Poll::Ready(reason);
        }
        let old = wakers.register(registration, waker);
        drop(wakers);
        // Outside the lock: the drop of a waker may run what it likes.
        drop(old);
        Poll::Pending
    }

    /// Forgets the waker of this registration.
    pub(crate) fn unregister(&self, registration: &mut Registration) {
        let Some(key) = registration.0.take() else {
            return;
        };
        let mut wakers = lock(&self.wakers);
        let waker = match &wakers.first {
            Some((first, _)) if *first == key => wakers.first.take().map(|(_, waker)| waker),
            _ => wakers.more.remove(&key),
        };
        drop(wakers);
        drop(waker);
    }
}

impl Wakers {
    /// Gives back the waker that was replaced.
    fn register(&mut self, registration: &mut Registration, waker: &Waker) -> Option<Waker> {
        let key = *registration.0.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        match &mut self.first {
            Some((first, known)) if *first == key => {
                (!known.will_wake(waker)).then(|| mem::replace(known, waker.clone()))
            }
            None if !self.more.contains_key(&key) => {
                self.first = Some((key, waker.clone()));
                None
            }
            _ => self.more.insert(key, waker.clone()),
        }
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let latch = Latch::new();
        assert_eq!(latch.get(), None);
        assert!(latch.set(LossReason::Revoked));
        assert!(!latch.set(LossReason::Expired));
        assert_eq!(latch.get(), Some(LossReason::Revoked));
    }

    #[test]
    fn a_waker_that_panics_keeps_no_other_from_being_woken() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("by a waker");
            }
        }
        struct Counts(AtomicU8);
        impl Wake for Counts {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let latch = Latch::new();
        let counts = Arc::new(Counts(AtomicU8::new(0)));
        let panics = Waker::from(Arc::new(Panics));
        for waker in [
            &panics,
            &counts.clone().into(),
            &panics,
            &counts.clone().into(),
        ] {
            let pending = latch.poll_set(&mut Registration::default(), waker);
            assert!(pending.is_pending());
        }
        assert!(latch.set(LossReason::Revoked));
        assert_eq!(counts.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn waiters_that_leave_are_forgotten() {
        let latch = Latch::new();
        let mut registrations: Vec<_> = (0..5).map(|_| Registration::default()).collect();
        for registration in &mut registrations {
            for _ in 0..2 {
                assert!(latch.poll_set(registration, Waker::noop()).is_pending());
            }
        }
        assert_eq!(lock(&latch.wakers).more.len(), 4);
        registrations.iter_mut().for_each(|r| latch.unregister(r));
        let wakers = lock(&latch.wakers);
        assert!(wakers.first.is_none() && wakers.more.is_empty());
    }
}
