//! The end of `max_hold` where the runtime of the application cannot see to it: each of its threads is
//! blocked, or it has ended. A thread of the library releases the lock then.
//!
//! A release can block, as that of a file does on a disk that stalls: another thread watches the other holds
//! meanwhile.
//!
//! Where the runtime lives, its own watchdog comes first: it gives the work the same time to stop, and waits
//! for the answer of the release before the next in line is called.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use super::STOPPING;
use crate::backend::{Granted, Held};
use crate::panics::catch;

static OVERTIME: Overtime = Overtime {
    holds: Mutex::new(Holds {
        due: BTreeMap::new(),
        next: 0,
        is_watched: false,
    }),
    changed: Condvar::new(),
};

struct Overtime {
    holds: Mutex<Holds>,
    /// Told when one is due before all others.
    changed: Condvar,
}

struct Holds {
    /// By when they are due; the numbers tell those of one moment apart.
    due: BTreeMap<Key, Weak<Held>>,
    next: u64,
    /// Whether a thread watches; from then on one always does.
    is_watched: bool,
}

type Key = (Instant, u64);

/// Forgets the hold when it is dropped, which the end of the hold does.
pub(super) struct Entry(Key);

/// Releases a hold that is there still some time after its end.
pub(super) fn watch(until: tokio::time::Instant, held: &Granted) -> Option<Entry> {
    let due = until.into_std().checked_add(2 * STOPPING)?;
    let mut holds = OVERTIME.holds();
    if !holds.is_watched {
        // Where there is no room for a thread now, the next hold tries again.
        holds.is_watched = start_watching();
    }
    let key = (due, holds.next);
    holds.next += 1;
    holds.due.insert(key, Arc::downgrade(held));
    if holds
        .due
        .first_key_value()
        .is_some_and(|(first, _)| *first == key)
    {
        OVERTIME.changed.notify_one();
    }
    Some(Entry(key))
}

impl Drop for Entry {
    fn drop(&mut self) {
        OVERTIME.holds().due.remove(&self.0);
    }
}

impl Overtime {
    fn holds(&self) -> MutexGuard<'_, Holds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let Some(held) = self.next_due().upgrade() else {
                continue;
            };
            let is_replaced = start_watching();
            // Dropped in there as well: it can be the last reference.
            let _ = catch(move || end(&held));
            // Where there was no room for another thread, this one goes on.
            if is_replaced {
                return;
            }
        }
    }

    /// Waits for the next hold that is due. It is ended without the lock: that can run wakers and a logger of the
    /// application.
    fn next_due(&self) -> Weak<Held> {
        let mut holds = self.holds();
        loop {
            let now = Instant::now();
            let first = holds.due.first_key_value().map(|((due, _), _)| *due);
            holds = match first {
                Some(due) if due <= now => match holds.due.pop_first() {
                    Some((_, held)) => return held,
                    None => holds,
                },
                Some(due) => {
                    let waited = self.changed.wait_timeout(holds, due - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.changed.wait(holds);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

/// Starts a thread that watches; whether there was room for it.
fn start_watching() -> bool {
    let thread = thread::Builder::new().name("distributed-lock-overtime".to_owned());
    thread.spawn(|| OVERTIME.run()).is_ok()
}

fn end(held: &Granted) {
    // Noted and reported, unless it was.
    held.loss();
    // It goes on by itself: the runtime to wait for it in may be blocked.
    drop(held.start_release());
}
