//! The end of a provider.

use std::sync::Weak;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::LockProvider;
use crate::lease::LossReason;

impl LockProvider {
    /// Ends the provider in order: no acquire is let in any more and those that wait are sent away
    /// ([`Closed`](crate::LockErrorKind::Closed)); locks that are held have `grace` to be released;
    /// those that are not are declared lost, which stops the work that they protect, and unlocked. Then
    /// the connections, threads and files of the backend are closed, whatever clones of the provider, its
    /// guards or the backend live: a database can be dropped, a directory unmounted.
    ///
    /// The releases are waited for by up to a response timeout, and so is the closing, which goes on
    /// by itself after that. A backend that other providers use, by a clone of it, is closed by the
    /// shutdown of the last of them. One that no provider was shut down over is closed when the last
    /// clone of it and the last guard are dropped.
    ///
    /// Call it when a service stops, so that the next instance need not wait for a lease to end. A
    /// second call, at the same time or later, waits as the first does: the shorter grace counts.
    ///
    /// # Cancel safety
    ///
    /// No acquire is let in again; locks that are held stay held until they are released, and the
    /// connections stay open until `shutdown` is called again.
    pub async fn shutdown(&self, grace: Duration) {
        self.end_holds(grace).await;
        let shared = &self.shared;
        let beside = async {
            for server in &shared.beside {
                server.close().await;
            }
        };
        let closing = async { tokio::join!(shared.backend.close(), beside) };
        let _ = timeout(shared.response_timeout, closing).await;
    }

    /// Until nothing is held or asked for any more, or nothing more is going to be answered.
    async fn end_holds(&self, grace: Duration) {
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
