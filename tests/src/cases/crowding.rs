//! Tasks of one client that take one lock again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use lock_core::{LockName, LockProvider};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::wait_for;

/// Four tasks, so that one of them always waits.
pub(super) struct Crowding {
    stop: Arc<AtomicBool>,
    entered: Arc<AtomicU32>,
    tasks: JoinSet<()>,
}

impl Crowding {
    /// Each holds the lock for so long at a time.
    pub(super) fn begin(client: &LockProvider, name: &LockName, hold: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let entered = Arc::new(AtomicU32::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..4 {
            let (client, name) = (client.clone(), name.clone());
            let (stop, entered) = (Arc::clone(&stop), Arc::clone(&entered));
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let guard = wait_for(&client, &name).await;
                    entered.fetch_add(1, Ordering::Relaxed);
                    if !hold.is_zero() {
                        sleep(hold).await;
                    }
                    guard.release().await.unwrap();
                }
            });
        }
        Self {
            stop,
            entered,
            tasks,
        }
    }

    /// How many times the lock was taken.
    pub(super) fn entered(&self) -> u32 {
        self.entered.load(Ordering::Relaxed)
    }

    /// How often another client is overtaken that takes the lock so many times, in nine of ten rounds: in one of the
    /// others the machine can have stood still for it alone, while the crowd entered hundreds of times.
    pub(super) async fn overtakes(
        &self,
        other: &LockProvider,
        name: &LockName,
        rounds: u32,
    ) -> u32 {
        let mut overtaken = Vec::new();
        for _ in 0..rounds {
            let before = self.entered();
            wait_for(other, name).await.release().await.unwrap();
            overtaken.push(self.entered() - before);
        }
        overtaken.sort_unstable();
        overtaken.truncate(overtaken.len() * 9 / 10);
        overtaken.into_iter().sum()
    }

    pub(super) async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}
