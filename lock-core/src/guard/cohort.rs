//! Holders in one process that have a lock one after the other, under one grant (lock cohorting).
//!
//! A lock that is released while a task of the same provider is next in line for it need not travel to
//! the store and back: the lease goes on, and the grant moves into the hold of the next holder.
//!
//! # Why one at a time is valid
//!
//! A hold is over before its grant is taken out of it, and only then is the next one made and seen by
//! another: a guard looks at [`Hold::is_over`](super::Hold) each time, and what it was about to be given,
//! a token for one, it is not given any more. A hold that is lost keeps its grant, which is released.
//! Both holds look at the same lease: one that ends meanwhile makes the next one stale, which its owner
//! gives back before it asks.
//!
//! What a store does between two holders is left out. So a grant is [tied](super::Hold::tie) to its holder where
//! that counts: where the store was asked to keep the lock closed, which it would also for the next; and where
//! it fences a transaction, which has to end before the next is granted the lock.
//!
//! # Why others are not kept from it
//!
//! A grant stays in the process for a limited time, counted from its first holder: a release after that
//! goes to the store, which lets others go first. What a task was handed and does not take, since it is
//! not polled, is taken back by then, and released ([`Recall`]); as soon, that is, as the runtime of the
//! release runs something.

use std::mem;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use crate::LockName;
use crate::backend::Granted;
use crate::provider::{Queue, Turn};

/// How long a grant that no caller asks for any more lies there for the next in line: a task takes it as soon
/// as it is polled.
const LENT: Duration = Duration::from_secs(1);

/// What the holders under one grant have in common.
#[derive(Clone, Default)]
pub(super) struct Cohort {
    /// When it is not handed over any more; `None` before it is held.
    until: Option<Instant>,
    /// Takes it back then; none before it was handed over.
    recall: Option<Weak<Recall>>,
    /// Whether it is on its way to its first holder.
    is_lent: bool,
}

/// Hands a grant that no caller awaits to the next in line, which can be a task that does not take it: it is
/// taken back then. Both come back where there is none in line, or it asks for the other mode, or there is no
/// runtime to take it back in time.
pub(crate) fn hand_on(turn: Turn, mut granted: Granted) -> Result<(), (Turn, Granted)> {
    let (queue, name) = (Arc::clone(turn.queue()), granted.hold.name.clone());
    let held = Arc::get_mut(&mut granted)
        .filter(|held| !held.hold.is_tied() && turn.is_awaited_as(held.hold.mode));
    let cohort = held.and_then(|held| {
        let cohort = &mut held.hold.cohort;
        let until = Instant::now() + LENT;
        cohort.until = Some(until);
        cohort.is_lent = true;
        cohort.recall_at(until, &queue, &name);
        cohort.recall.is_some().then(|| cohort.clone())
    });
    match cohort {
        Some(cohort) => {
            turn.hand_on(granted)?;
            cohort.take_back_if_late(&queue, &name);
            Ok(())
        }
        None => Err((turn, granted)),
    }
}

impl Cohort {
    /// It is held now: the time begins, for the first holder.
    pub(super) fn begin(&mut self, now: Instant, limit: Duration) {
        if mem::take(&mut self.is_lent) {
            self.until = None;
            self.recall = None;
        }
        self.until = self.until.or_else(|| now.checked_add(limit));
    }

    /// Until when it may be handed over, if it may now.
    pub(super) fn open_until(&self) -> Option<Instant> {
        self.until.filter(|until| Instant::now() < *until)
    }

    /// Goes on with that of the holder before. False where there is no runtime to take it back in time.
    pub(super) fn join(&mut self, before: &Self, queue: &Arc<Queue>, name: &LockName) -> bool {
        let Some(until) = before.until else {
            return false;
        };
        self.until = Some(until);
        // One whose runtime has ended is replaced.
        self.recall = before.recall.clone().filter(|recall| !is_over(recall));
        if self.recall.is_none() {
            self.recall_at(until, queue, name);
        }
        self.recall.is_some()
    }

    fn recall_at(&mut self, until: Instant, queue: &Arc<Queue>, name: &LockName) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let recall = Arc::new(Recall {
            queue: Arc::clone(queue),
            name: name.clone(),
            until,
        });
        let known = Arc::downgrade(&recall);
        runtime.spawn(async move {
            sleep_until(until).await;
            drop(recall);
        });
        // A runtime that is ending runs nothing any more.
        self.recall = Some(known).filter(|recall| !is_over(recall));
    }

    /// Takes back what was handed over after the end of its recall. That ends before it looks, and looks
    /// under the lock of the lines: either it finds what was handed over, or this finds it ended.
    pub(super) fn take_back_if_late(&self, queue: &Queue, name: &LockName) {
        if let (Some(recall), Some(until)) = (&self.recall, self.until)
            && is_over(recall)
        {
            take_back(queue, name, until);
        }
    }

    /// Whether it was handed over, and may not be after that time.
    fn is_due(&self, until: Instant) -> bool {
        self.recall.is_some() && self.until <= Some(until)
    }
}

/// Takes a grant back that was handed over and not taken: when it is dropped, which the end of its runtime
/// does as well.
struct Recall {
    queue: Arc<Queue>,
    name: LockName,
    until: Instant,
}

impl Drop for Recall {
    fn drop(&mut self) {
        take_back(&self.queue, &self.name, self.until);
    }
}

fn is_over(recall: &Weak<Recall>) -> bool {
    recall.strong_count() == 0
}

fn take_back(queue: &Queue, name: &LockName, until: Instant) {
    let is_due = |granted: &Granted| granted.hold.cohort.is_due(until);
    // Outside the lock of the lines: dropped, it is released.
    drop(queue.recall(name, is_due));
}
