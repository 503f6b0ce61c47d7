//! A lease, and the times that follow from it.

use std::time::Duration;

/// How long an acquire is tried again after its answer was lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// How long a lock lives on the server without a word from us, and how long we count on it.
///
/// The order is the safety: our validity ends before the lock does on the server. The server counts from
/// when it has answered; we count from before the request was sent, and take a margin off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseTerms {
    lease: Duration,
}

impl LeaseTerms {
    /// Of a lease of at least half a second: the margin of a much shorter one would be longer than it.
    pub(crate) const fn new(lease: Duration) -> Self {
        Self { lease }
    }

    pub(crate) const fn lease(self) -> Duration {
        self.lease
    }

    /// How often a lease is extended: twice may fail.
    pub(crate) fn heartbeat(self) -> Duration {
        self.lease / 3
    }

    /// By how much our validity is shorter: clocks that run at different rates, and the time between a look
    /// and what it leads to.
    pub(crate) fn margin(self) -> Duration {
        self.lease / 100 + Duration::from_millis(50)
    }

    /// When a lease ends for us that was asked for then.
    pub(crate) fn valid_until(self, sent: Duration) -> Duration {
        sent + self.lease - self.margin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_stop_counting_on_a_lease_before_the_server_ends_it() {
        let day = 24 * 60 * 60 * 1_000;
        for millis in [500, 1_000, 2_500, 30_000, day] {
            let terms = LeaseTerms::new(Duration::from_millis(millis));
            let (sent, lease) = (Duration::from_secs(7), terms.lease());
            let validity = terms.valid_until(sent) - sent;
            assert_eq!(validity + terms.margin(), lease);
            assert!(terms.margin() >= lease / 100 && terms.heartbeat() * 2 < validity);
        }
    }
}
