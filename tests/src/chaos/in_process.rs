//! Workers beside each other in one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use lock_core::LockMode;
use lock_core::backend::Clock;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::locks::Locks;
use super::resource::Resource;
use super::worker::Worker;
use super::{names, tell, try_all};
use crate::checker::{Action, Event, HEALED, Journal, Stage};

/// Workers beside each other in one process, each of which is called a process in the history if
/// it has a client of its own.
#[derive(Clone, Copy, Debug)]
pub struct InProcess {
    /// How many workers each client has.
    pub workers: usize,
    /// How many of these read what the others write.
    pub readers: usize,
    /// How many locks they want.
    pub locks: usize,
    /// For how long they work.
    pub lasts: Duration,
    /// Every how many holds a worker stands still, and for how long.
    pub pausing: Option<(u32, Duration)>,
    /// How long each lock is tried at the end.
    pub free_within: Duration,
    /// What chance chooses.
    pub seed: u64,
}

impl InProcess {
    /// Works with these clients, and gives the history by this clock.
    pub async fn work<L: Locks, R: Resource>(
        self,
        clients: Vec<L>,
        resource: R,
        clock: Arc<dyn Clock>,
    ) -> Vec<Event> {
        let mut rng = Rng::with_seed(self.seed);
        let names = names(self.locks);
        let journal = Journal::on_clock("", clock);
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for (number, client) in clients.iter().enumerate() {
            for place in 0..self.workers {
                let worker = Worker {
                    locks: client.clone(),
                    resource: resource.clone(),
                    journal: journal.of(&format!("client {number}")),
                    names: names.clone(),
                    mode: match place < self.readers {
                        true => LockMode::Shared,
                        false => LockMode::Exclusive,
                    },
                    rng: rng.fork(),
                    pausing: self.pausing,
                    lingering: None,
                };
                workers.spawn(worker.work(Arc::clone(&stop)));
            }
        }
        sleep(self.lasts).await;
        stop.store(true, Ordering::Relaxed);
        workers.join_all().await;
        journal.named(HEALED, &"").note(Action::Fault, Stage::Ok);
        let probe = journal.of("probe");
        for client in clients.iter().take(1) {
            try_all(client, &names, self.free_within, &probe).await;
        }
        tell(&resource, &names, &journal).await;
        journal.take()
    }
}
