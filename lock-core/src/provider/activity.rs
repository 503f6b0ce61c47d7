//! What this process does with its locks.

use super::LockProvider;
use crate::activity::{Activity, LocalLock};
use crate::guard;
use crate::queue::Stage;

impl LockProvider {
    /// What this provider holds and waits for now, and what this process has lost and was refused. Asks no
    /// store, and waits for nothing: for all instances together see [`list`](Self::list).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let guard = locks.acquire("report:rebuild:2026", Duration::ZERO).await?;
    /// let activity = locks.activity();
    /// let [lock] = activity.locks() else { panic!() };
    /// assert!(lock.held_for().is_some() && lock.waiting() == 0);
    /// # drop(guard);
    /// # Ok(()) }
    /// ```
    ///
    /// It is for operators, and costs a look at each of these locks.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let shared = &self.shared;
        let of_queue = shared.queue.lines().into_iter();
        let of_queue = of_queue.map(|(name, stage, waiting)| {
            let (held_for, waiting) = match stage {
                Stage::Holding(held) => {
                    // One that is lost is not held, also while its guard lives.
                    let held = held.upgrade();
                    let held = held.filter(|held| held.hold.latch.get().is_none());
                    (held.map(|held| held.hold.held_for()), waiting)
                }
                Stage::Kept => (None, waiting),
                Stage::Asking | Stage::Waiting => (None, waiting + 1),
            };
            LocalLock {
                name,
                held_for,
                waiting,
            }
        });
        // They seek a permit, the first of them in the store.
        let seekers = shared.seekers.lines().into_iter();
        let seekers = seekers.map(|((name, _), _, waiting)| LocalLock {
            name,
            held_for: None,
            waiting: waiting + 1,
        });
        Activity {
            locks: of_queue.chain(seekers).collect(),
            losses: guard::lately_lost(),
            labels: shared.observer.labels(),
        }
    }
}
