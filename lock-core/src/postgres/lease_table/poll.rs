//! When the locks are looked at that callers wait for.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause, and the longest; each is twice the one before.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

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

    /// The look has ended: the next comes later, and not with those of other processes; or when a lock opens that is
    /// kept until then.
    pub(super) fn ended(&mut self, opens: Option<Duration>) {
        let pause = self.pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        self.next = Some(Instant::now() + opens.map_or(pause, |opens| opens.min(pause)));
        self.pause = (self.pause * 2).min(LONGEST);
    }

    /// A lock was released here, or refused: those who wait are looked after soon.
    pub(super) fn hurry(&mut self) {
        self.pause = SHORTEST;
        if let Some(next) = &mut self.next {
            *next = (*next).min(Instant::now() + SHORTEST);
        }
    }
}
