//! The end of a provider.

use std::pin::pin;
use std::sync::Weak;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::LockProvider;
use crate::lease::LossReason;

impl LockProvider {
    /// Ends the provider in order: nobody is let in any more and whoever waits is sent away
    /// ([`Closed`](crate::LockErrorKind::Closed)); locks that are held have `grace` to be released;
    /// those that are not are declared lost, which stops the work that they protect, and unlocked.
    ///
    /// Call it when a service stops, so that the next instance need not wait for a lease to end. A
    /// second call waits as the first does.
    ///
    /// # Cancel safety
    ///
    /// Nobody is let in again; locks that are held stay held until they are released.
    pub async fn shutdown(&self, grace: Duration) {
        let shared = &self.shared;
        shared.closing.set(LossReason::Shutdown);
        shared.queue.close();
        let drained = async {
            loop {
                let mut left = pin!(shared.drained.notified());
                left.as_mut().enable();
                if shared.queue.is_empty() {
                    return;
                }
                left.await;
            }
        };
        let in_time = match Instant::now().checked_add(grace) {
            Some(end) => timeout_at(end, drained).await.is_ok(),
            None => {
                drained.await;
                true
            }
        };
        if in_time {
            return;
        }
        let held: Vec<_> = shared
            .queue
            .holders()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        tracing::warn!(
            locks = held.len(),
            "locks were still held at the end of the shutdown's grace"
        );
        let mut forfeits = JoinSet::new();
        for held in held {
            forfeits.spawn(async move { held.forfeit(LossReason::Shutdown).await });
        }
        forfeits.join_all().await;
    }
}
