//! Keys that another program has written to: a line in the log now and then.

use std::time::Duration;

use tokio::time::Instant;

use crate::redis::key::Key;

/// Between two lines, however many keys there are and however often they are asked for.
const TOLD_EVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Foreign(Option<Instant>);

impl Foreign {
    /// The lock of this key is held by what no lock client has written.
    pub(super) fn tell(&mut self, key: &Key) {
        if self.0.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            self.0 = Some(Instant::now());
            tracing::warn!(
                key = &*key.text,
                "another program has written to the Redis key of a lock, or made it permanent: the \
                 lock counts as held until the key ends or is deleted"
            );
        }
    }
}
