//! Processes of a campaign that could run, and did not: the machine was busy with other work.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::Queued;
use crate::checker::Journal;

/// The name of the fault that is written down for them.
pub const STARVED: &str = "starved";

/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);

/// A look is compared with that which is so many earlier.
const LOOKS: usize = 4;

/// Looks at them while a campaign lasts. A loss that comes of it is no loss without a fault.
#[derive(Debug)]
pub(super) struct Starvation {
    most: Arc<Mutex<Duration>>,
    looking: JoinHandle<()>,
}

impl Starvation {
    /// With a lease of this length, if there is one.
    pub(super) fn watched(journal: Journal, lease: Option<Duration>) -> Self {
        let most = Arc::default();
        let looking = tokio::spawn(look(journal, lease, Arc::clone(&most)));
        Self { most, looking }
    }

    /// The longest that a process has waited for a processor within a second.
    pub(super) fn most(self) -> Duration {
        self.looking.abort();
        *self.most.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look(journal: Journal, lease: Option<Duration>, most: Arc<Mutex<Duration>>) {
    // As little as is left of a lease by what stands still for as long as costs no lock.
    let costly = lease.map(|lease| lease / 5);
    let starved = journal.of("").named(STARVED, &"");
    let mut looks = VecDeque::new();
    loop {
        looks.push_back((journal.now(), Instant::now(), Queued::here_and_there()));
        sleep(EVERY).await;
        let (began, since, queued) = &looks[0];
        // A machine that stood still as a whole counts nothing, and is late.
        let late = since
            .elapsed()
            .saturating_sub(EVERY * u32::try_from(looks.len()).unwrap());
        let waited = queued.longest_since().max(late);
        {
            let mut most = most.lock().unwrap_or_else(PoisonError::into_inner);
            *most = waited.max(*most);
        }
        if costly.is_some_and(|costly| waited > costly) {
            starved.note_since(*began);
        }
        if looks.len() == LOOKS {
            looks.pop_front();
        }
    }
}
