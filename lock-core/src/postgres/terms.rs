//! The lease of a session: how long, and what follows from it.

use std::time::Duration;

use super::key::lease_key;
use crate::LockError;
use crate::server::LeaseTerms;

/// Shorter leases end by themselves on a busy machine.
const SHORTEST: Duration = Duration::from_secs(1);

/// Longer ones free nothing in time, and are more than Linux takes as the idle time of a connection.
const LONGEST: Duration = Duration::from_secs(9 * 60 * 60);

/// How long a look at who holds what takes at most, however long the lease is.
const LOOK: Duration = Duration::from_secs(1);

/// The time to live of a session on the server. The server ends a session that was idle for the whole
/// lease; nothing of what we count is longer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms(LeaseTerms);

impl Terms {
    pub(super) fn new(lease: Duration) -> Result<Self, LockError> {
        if !(SHORTEST..=LONGEST).contains(&lease) {
            return Err(LockError::misconfigured(format!(
                "a lease of {lease:?} is not possible; give one from {SHORTEST:?} to {LONGEST:?}"
            )));
        }
        // The server counts in milliseconds; part of one would make its limit the shorter one.
        let whole = Duration::from_millis(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX));
        Ok(Self(LeaseTerms::new(whole)))
    }

    /// The times that follow from it.
    pub(super) const fn lease(self) -> LeaseTerms {
        self.0
    }

    /// After this long without a word the server ends the session, never earlier.
    pub(super) fn lease_ms(self) -> u64 {
        u64::try_from(self.0.lease().as_millis()).unwrap_or(u64::MAX)
    }

    /// For how long a look at who holds what may keep the session from its locks: the server cancels it then.
    ///
    /// No look costs a lease, nor do several in a row, because each begins with a session whose next heartbeat is due
    /// after it: one that would be due earlier is sent before. When the look is over, the last proof of the session is
    /// thus no older than a third of the lease (the time between heartbeats) or than the look, which is half of it at
    /// most. What is left of the lease, without its [margin](LeaseTerms::margin), is for the heartbeat that follows: 440 ms
    /// of the shortest one.
    pub(super) fn look(self) -> Duration {
        (self.0.lease() / 2).min(LOOK)
    }

    /// The same as the server takes it.
    pub(super) fn look_ms(self) -> u64 {
        u64::try_from(self.look().as_millis()).unwrap_or(u64::MAX)
    }

    /// The advisory lock key that sessions with this lease hold shared.
    pub(super) fn lease_key(self) -> i64 {
        lease_key(self.lease_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_that_cannot_work_are_refused() {
        for lease in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
            let error = Terms::new(lease).unwrap_err();
            assert!(error.is_misconfigured() && error.to_string().contains("1s to"));
        }
    }

    /// The session has proven itself no earlier than the look began, or has a heartbeat to send after it.
    #[test]
    fn a_look_leaves_a_lease_the_time_of_a_heartbeat() {
        for lease in [SHORTEST, SHORTEST * 2, SHORTEST * 3, SHORTEST * 30, LONGEST] {
            let terms = Terms::new(lease).unwrap();
            let proven = Duration::from_secs(7);
            let age = terms.look().max(terms.lease().heartbeat());
            let left = terms.lease().valid_until(proven) - (proven + age);
            assert!(left >= Duration::from_millis(440), "{lease:?}: {left:?}");
        }
    }

    #[test]
    fn a_lease_is_whole_milliseconds() {
        let terms = Terms::new(Duration::from_micros(1_000_999)).unwrap();
        assert_eq!(terms.lease_ms(), 1_000);
    }
}
