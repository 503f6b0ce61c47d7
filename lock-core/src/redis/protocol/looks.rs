//! How often a cluster is asked which node has what, and what the log says of its answers.

use std::time::Duration;

use tokio::time::Instant;

use crate::LockError;
use crate::outage::{Outage, SoFar};
use crate::redis::topology::Topology;

/// Between questions to a cluster which node has what.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The same while an earlier one is not answered: what does not answer costs a whole timeout, and what
/// comes back meanwhile is not to wait for that. It doubles with each that is not answered: each makes
/// connections, and on a machine that is slow at TLS these would leave no time for any of them.
const LOOK_BESIDE: Duration = Duration::from_millis(500);

/// How long a node is not connected to until it is asked where it is.
const ABSENT: Duration = Duration::from_millis(250);

pub(super) struct Looks {
    last: Option<Instant>,
    /// How many have no answer yet.
    open: usize,
    /// The cluster does not say which node has what.
    unlocated: Outage,
}

impl Looks {
    pub(super) const fn new() -> Self {
        Self {
            last: None,
            open: 0,
            unlocated: Outage::new(),
        }
    }

    /// Begins one, unless it is too soon after the last; whether it did.
    pub(super) fn begin(&mut self) -> bool {
        let now = Instant::now();
        let pause = match self.open {
            0 => LOOK_AGAIN,
            _ => self.until_beside(),
        };
        if self.last.is_some_and(|last| last + pause > now) {
            return false;
        }
        self.last = Some(now);
        self.open += 1;
        true
    }

    fn until_beside(&self) -> Duration {
        LOOK_BESIDE * (1 << self.open.saturating_sub(1).min(4))
    }

    /// When the next is due for a node that is not there since then.
    pub(super) fn next_for_absent(&self, since: Instant) -> Instant {
        let absent = since + ABSENT;
        self.last
            .map_or(absent, |last| absent.max(last + self.until_beside()))
    }

    /// One has ended; gives what it found.
    pub(super) fn ended(&mut self, result: Result<Topology, LockError>) -> Option<Topology> {
        self.open -= 1;
        match result {
            Ok(found) => {
                self.unlocated.over(|lasted| {
                    tracing::info!(?lasted, "the slots of the Redis cluster can be read again");
                });
                Some(found)
            }
            Err(error) => {
                self.unlocated.failed(|SoFar { failures, lasting }| {
                    tracing::warn!(
                        %error, failures, lasting,
                        "cannot read the slots of the Redis cluster: locks whose slots have moved are not found; retrying"
                    );
                });
                None
            }
        }
    }
}
