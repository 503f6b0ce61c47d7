//! The end of a provider.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::LockProvider;
use crate::backend::Granted;
use crate::lease::LossReason;

/// What became of the locks that were held when a provider was [shut down](LockProvider::shutdown).
///
/// A lock that was lost for another reason meanwhile is in neither number, nor is one whose hold began
/// after the shutdown and was given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// How many were released by their holders.
    pub released: usize,
    /// How many were still held at the end of the grace: they were declared lost, which stops the work
    /// that they protect, and unlocked. The outcome of that work is unknown.
    pub forfeited: usize,
}

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
    /// second call, at the same time or later, waits as the first does: the shorter grace counts. Each
    /// call counts what was held when it began.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let kept = locks.acquire("report:rebuild:2026", Duration::ZERO).await?;
    /// let end = locks.shutdown(Duration::from_millis(50)).await;
    /// if end.forfeited > 0 {
    ///     eprintln!("{} locks were held beyond the grace", end.forfeited);
    /// }
    /// assert!(!kept.is_valid());
    /// # assert_eq!((end.released, end.forfeited), (0, 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// No acquire is let in again; locks that are held stay held until they are released, and the
    /// connections stay open until `shutdown` is called again.
    pub async fn shutdown(&self, grace: Duration) -> Shutdown {
        let ended = self.end_holds(grace).await;
        let shared = &self.shared;
        let companions = async {
            for server in &shared.companions {
                server.close().await;
            }
        };
        let closing = async { tokio::join!(shared.backend.close(), companions) };
        let _ = timeout(shared.response_timeout, closing).await;
        ended
    }

    /// Until nothing is held or asked for any more, or nothing more is going to be answered.
    async fn end_holds(&self, grace: Duration) -> Shutdown {
        let shared = &self.shared;
        // Before the provider is closing: leaders resign there and then.
        let mut held = self.held();
        shared.closing.set(LossReason::Shutdown);
        shared.queue.close();
        shared.seekers.close();
        // With those that were granted in between.
        held.extend(self.held());
        held.sort_unstable_by_key(|held| Arc::as_ptr(held).addr());
        held.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let is_released = |held: &&Granted| held.hold.is_over();
        let released = |held: &[Granted]| held.iter().filter(is_released).count();
        // Another call of this, with a shorter grace, can do it as well.
        let is_forfeited = |held: &&Granted| {
            held.hold.latch.get() == Some(LossReason::Shutdown) && !held.hold.is_over()
        };
        let forfeited = |held: &[Granted]| held.iter().filter(is_forfeited).count();
        let emptied = shared.queue.emptied();
        let in_time = match Instant::now().checked_add(grace) {
            Some(end) => timeout_at(end, emptied).await.is_ok(),
            None => {
                emptied.await;
                true
            }
        };
        if in_time {
            return Shutdown {
                released: released(&held),
                forfeited: forfeited(&held),
            };
        }
        let mut kept = self.held();
        // A release that is under way is answered or not; the lock is not lost by that.
        kept.retain(|held| !held.hold.is_over());
        if !kept.is_empty() {
            tracing::warn!(
                locks = kept.len(),
                "locks were held beyond the grace of the shutdown"
            );
        }
        let mut forfeits = JoinSet::new();
        for held in kept.clone() {
            forfeits.spawn(async move { held.forfeit(LossReason::Shutdown).await });
        }
        let ended = async {
            forfeits.join_all().await;
            // Questions and releases that were under way.
            shared.queue.emptied().await;
        };
        // What is not answered now is not going to be.
        let _ = timeout(crate::guard::STOPPING + shared.response_timeout, ended).await;
        Shutdown {
            released: released(&held),
            forfeited: forfeited(&kept),
        }
    }

    /// What is held now, by guards of all clones.
    fn held(&self) -> Vec<Granted> {
        let holders = self.shared.queue.holders();
        holders.iter().filter_map(Weak::upgrade).collect()
    }
}
