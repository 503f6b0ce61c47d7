//! When the locks are looked at that callers wait for.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause, and the longest; each is twice the one before.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Of locks that end within this the look says when: no look is later.
pub(super) const SOON: Duration = LONGEST.saturating_mul(2);

/// The shortest pause before the end of a lock: many end one after the other.
const BEFORE_END: Duration = Duration::from_millis(20);

pub(super) struct Poll {
    pause: Duration,
    /// Unless a look is under way.
    next: Option<Instant>,
}

impl Poll {
    pub(super) fn new() -> Self {
        Self {
            pause: SHORTEST,
            next: Some(Instant::now()),
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.next.is_some_and(|next| next <= Instant::now())
    }

    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// A look is under way.
    pub(super) const fn begun(&mut self) {
        self.next = None;
    }

    /// The look has ended: the next comes later, and not with those of other processes; or when the first lock
    /// ends.
    pub(super) fn ended(&mut self, first_end: Option<Duration>) {
        let pause = self.pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        self.next = Some(Instant::now() + pause);
        self.pause = (self.pause * 2).min(LONGEST);
        self.ends_in(first_end);
    }

    /// A lock was released here, or refused, which ends so soon if that is known: those who wait are looked after
    /// soon.
    pub(super) fn hurry(&mut self, end: Option<Duration>) {
        self.pause = SHORTEST;
        if let Some(next) = &mut self.next {
            *next = (*next).min(Instant::now() + SHORTEST);
        }
        self.ends_in(end);
    }

    fn ends_in(&mut self, left: Option<Duration>) {
        if let (Some(next), Some(left)) = (&mut self.next, left) {
            *next = (*next).min(Instant::now() + left.max(BEFORE_END));
        }
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use super::*;

    /// One that has waited for long.
    fn seldom() -> Poll {
        let mut poll = Poll::new();
        for _ in 0..8 {
            poll.begun();
            poll.ended(None);
        }
        poll
    }

    fn pause(poll: &Poll) -> Duration {
        poll.next().unwrap() - Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_not_later_than_the_end_of_a_lock() {
        let left = Duration::from_millis(300);
        let mut poll = seldom();
        assert!(pause(&poll) > left);
        poll.begun();
        poll.ended(Some(left));
        assert_eq!(pause(&poll), left);
        // Not again and again for locks that end one after the other.
        poll.begun();
        poll.ended(Some(Duration::from_millis(1)));
        assert_eq!(pause(&poll), BEFORE_END);
        // One that ends later than the next look is looked at again.
        poll.begun();
        poll.ended(Some(SOON));
        assert!(pause(&poll) < SOON);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_begins_anew_and_knows_the_end() {
        let mut poll = seldom();
        poll.hurry(None);
        assert_eq!(pause(&poll), SHORTEST);
        poll.hurry(Some(SHORTEST / 2));
        assert_eq!(pause(&poll), SHORTEST / 2);
        // A look that is under way says it itself.
        poll.begun();
        poll.hurry(Some(SHORTEST / 2));
        assert!(poll.next().is_none());
    }
}
