//! Quarantines of the servers: a line in the log for each.

use std::time::Duration;

use tokio::time::Instant;

/// Until when the last one is, as far as the server has said.
#[derive(Default)]
pub(super) struct Quarantine(Option<Instant>);

impl Quarantine {
    /// No lock is granted for so long, for what a server may have forgotten, or for what a slot may have lost
    /// that came to it.
    pub(super) fn tell(&mut self, left: Duration, has_moved: bool) {
        let now = Instant::now();
        if self.0.is_some_and(|until| until > now) {
            return;
        }
        self.0 = Some(now + left);
        if has_moved {
            tracing::warn!(
                ?left,
                "slots of the Redis cluster are new or have other masters than before, and not all masters \
                 say that they have been masters for a lease: no lock of these slots is granted until those \
                 that a master may have lost have ended"
            );
        } else {
            tracing::warn!(
                ?left,
                "the Redis server was started lately, another has taken its place, or its clock was put: no \
                 lock is granted until those that may have been forgotten have ended"
            );
        }
    }
}
