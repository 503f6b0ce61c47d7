//! What this process does with its locks.

use std::sync::Weak;
use std::time::Duration;

use super::LockProvider;
use crate::activity::{Activity, LocalLock};
use crate::backend::Held;
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
        let of_queue = of_queue.map(|line| {
            let asks = matches!(line.stage, Some(Stage::Asking | Stage::Waiting));
            let writer = match line.stage {
                Some(Stage::Holding(held)) => held_for(&held),
                _ => None,
            };
            // The first since longest.
            let read_for: Vec<_> = line.readers.iter().filter_map(held_for).collect();
            LocalLock {
                name: line.key,
                held_for: writer.or_else(|| read_for.first().copied()),
                readers: read_for.len(),
                waiting: line.waiting + usize::from(asks),
            }
        });
        // They seek a permit, the first of them in the store.
        let seekers = shared.seekers.lines().into_iter();
        let seekers = seekers.map(|line| LocalLock {
            name: line.key.0,
            held_for: None,
            readers: 0,
            waiting: line.waiting + 1,
        });
        Activity {
            locks: of_queue.chain(seekers).collect(),
            losses: guard::lately_lost(),
            labels: shared.observer.labels(),
        }
    }
}

/// For how long it is held. One that is lost is not, also while its guard lives.
fn held_for(held: &Weak<Held>) -> Option<Duration> {
    let held = held.upgrade()?;
    let is_lost = held.hold.latch.get().is_some();
    (!is_lost).then(|| held.hold.held_for())
}
