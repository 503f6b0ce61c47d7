//! Quarantines of the servers: a line in the log for each.

use std::time::Duration;

use tokio::time::Instant;

use crate::checked::grants_nothing_for;

/// Until when the last one is, as far as the server has said.
#[derive(Default)]
pub(super) struct Quarantine(Option<Instant>);

impl Quarantine {
    /// No lock is granted for so long, for what a server may have forgotten, or for what a slot may have lost
    /// that came to it. `own` is the longest for which this process can hold a lock, or wait.
    pub(super) fn tell(&mut self, left: Duration, own: Duration, has_moved: bool) {
        let now = Instant::now();
        if self.0.is_some_and(|until| until > now) {
            return;
        }
        self.0 = Some(now + left);
        grants_nothing_for(left);
        if has_moved {
            tracing::warn!(
                ?left,
                "slots of the Redis cluster are new or have changed masters, and not all masters report that they have been masters for a lease: no lock of these slots is granted until those that a master may have lost have expired (quarantine)"
            );
        } else {
            tracing::warn!(
                ?left,
                "the Redis server was restarted or replaced, or its clock jumped: no lock is granted until those that it may have forgotten have expired (quarantine)"
            );
        }
        if left > own {
            tracing::warn!(
                ?left,
                ?own,
                "the quarantine is longer than that of this process: another process has, or had, a longer lease; all processes that use the same locks need the same lease"
            );
        }
    }
}
