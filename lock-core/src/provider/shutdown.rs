//! The end of a provider.

use std::sync::Weak;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::LockProvider;
use crate::lease::LossReason;

impl LockProvider {
    /// Ends the provider in order: nobody is let in any more and whoever waits is sent away
    /// ([`Closed`](crate::LockErrorKind::Closed)); locks that are held have `grace` to be released;
    /// those that are not are declared lost, which stops the work that they protect, and unlocked.
    /// It is over when the backend has answered the releases, or within a response timeout.
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
        let emptied = shared.queue.emptied();
        let in_time = match Instant::now().checked_add(grace) {
            Some(end) => timeout_at(end, emptied).await.is_ok(),
            None => {
                emptied.await;
                true
            }
        };
        if in_time {
            return;
        }
        let held: Vec<_> = (shared.queue.holders().iter())
            .filter_map(Weak::upgrade)
            .collect();
        if !held.is_empty() {
            tracing::warn!(
                locks = held.len(),
                "locks were held beyond the grace of the shutdown"
            );
        }
        let mut forfeits = JoinSet::new();
        for held in held {
            forfeits.spawn(async move { held.forfeit(LossReason::Shutdown).await });
        }
        let ended = async {
            forfeits.join_all().await;
            // Questions and releases that were under way.
            shared.queue.emptied().await;
        };
        // What is not answered now is not going to be.
        let _ = timeout(crate::guard::STOPPING + shared.response_timeout, ended).await;
    }
}
