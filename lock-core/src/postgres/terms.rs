//! The lease of a session: how long, and what follows from it.

use std::time::Duration;

use crate::LockError;
use crate::name::key::postgres_lease_key;

/// Shorter leases end by themselves on a busy machine.
const SHORTEST: Duration = Duration::from_secs(1);

/// Longer ones free nothing in time, and are more than Linux takes as the idle time of a connection.
const LONGEST: Duration = Duration::from_secs(9 * 60 * 60);

/// The time to live of a session on the server, and the times that are derived from it.
///
/// The order is the safety: our validity ends before anything on the server's side does. The server
/// ends a session that was idle for the whole lease, counted from when it had answered; we count
/// from before we asked, and take a margin off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    lease: Duration,
}

impl Terms {
    pub(super) fn new(lease: Duration) -> Result<Self, LockError> {
        if !(SHORTEST..=LONGEST).contains(&lease) {
            return Err(LockError::misconfigured(format!(
                "a lease of {lease:?} is not possible; give one from {SHORTEST:?} to {LONGEST:?}"
            )));
        }
        // The server counts in milliseconds; part of one would make its limit the shorter one.
        let whole = Duration::from_millis(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX));
        Ok(Self { lease: whole })
    }

    /// After this long without a word the server ends the session, never earlier.
    pub(super) fn lease_ms(self) -> u64 {
        u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX)
    }

    /// The advisory lock key that sessions with this lease hold shared.
    pub(super) fn lease_key(self) -> i64 {
        postgres_lease_key(self.lease_ms())
    }

    /// How long after a statement was sent we count on it, once it was answered.
    pub(super) fn validity(self) -> Duration {
        self.lease - (self.lease / 100 + Duration::from_millis(50))
    }

    /// How long the session may go without a statement.
    pub(super) fn heartbeat(self) -> Duration {
        self.lease / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_stop_counting_on_a_session_before_the_server_ends_it() {
        for lease in [SHORTEST, Duration::from_millis(2_500), LONGEST] {
            let terms = Terms::new(lease).unwrap();
            let margin = lease / 100 + Duration::from_millis(50);
            assert_eq!(terms.validity() + margin, lease);
            assert!(terms.heartbeat() * 2 < terms.validity());
        }
    }

    #[test]
    fn leases_that_cannot_work_are_refused() {
        for lease in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
            let error = Terms::new(lease).unwrap_err();
            assert!(error.is_misconfigured() && error.to_string().contains("1s to"));
        }
    }

    #[test]
    fn a_lease_is_whole_milliseconds() {
        let terms = Terms::new(Duration::from_micros(1_000_999)).unwrap();
        assert_eq!(terms.lease_ms(), 1_000);
    }
}
