//! The first of the deadlines of several leases, for work that needs all of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Clock, Lease, nanos};

/// When the first of several leases can end by itself: deadlines only move forward, so none of them passes before the
/// first one that was there when they were added.
#[derive(Default)]
pub(crate) struct Deadlines {
    first: Option<(Arc<dyn Clock>, u64)>,
    /// Whether they are of several clocks, which are not compared.
    are_mixed: bool,
}

impl Deadlines {
    /// Adds the deadline of this lease, if it has one.
    pub(crate) fn add(&mut self, lease: &Lease) {
        let Some(until) = &lease.0.until else { return };
        let deadline = until.deadline.load(Ordering::Acquire);
        let new = || (Arc::clone(&until.clock), deadline);
        let (clock, first) = self.first.get_or_insert_with(new);
        *first = deadline.min(*first);
        self.are_mixed |= !Arc::ptr_eq(clock, &until.clock);
    }

    /// Whether one of the leases can have ended by itself; always, where one clock does not measure them all.
    pub(crate) fn may_have_passed(&self) -> bool {
        let passed = |(clock, first): &(Arc<dyn Clock>, u64)| nanos(clock.now()) >= *first;
        self.are_mixed || self.first.as_ref().is_some_and(passed)
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use std::time::Duration;

    use super::super::TokioClock;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lease(clock: &Arc<TokioClock>, ends_in: Duration) -> Lease {
        let deadline = clock.now() + ends_in;
        Lease::until(clock.clone(), deadline, SECOND)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_deadline_counts_until_they_are_looked_at_again() {
        let clock = Arc::new(TokioClock::new());
        let leases = [3, 2, 4].map(|seconds| lease(&clock, seconds * SECOND));
        let look = || {
            let mut deadlines = Deadlines::default();
            deadlines.add(&Lease::unbounded());
            leases.iter().for_each(|lease| deadlines.add(lease));
            deadlines
        };
        let first = look();
        for lease in &leases {
            lease.extend(clock.now() + 5 * SECOND);
        }
        tokio::time::advance(2 * SECOND - Duration::from_millis(1)).await;
        assert!(!first.may_have_passed());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(first.may_have_passed() && !look().may_have_passed());
        tokio::time::advance(3 * SECOND).await;
        assert!(look().may_have_passed());
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_of_several_clocks_can_have_passed_at_any_time() {
        let mut deadlines = Deadlines::default();
        assert!(!deadlines.may_have_passed());
        for is_mixed in [false, true] {
            let clock = Arc::new(TokioClock::new());
            deadlines.add(&lease(&clock, SECOND));
            assert_eq!(deadlines.may_have_passed(), is_mixed);
        }
    }
}
