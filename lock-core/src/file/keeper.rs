//! Looks after the locks that are held: a lock file or a directory that is removed under its
//! holder is a lock lost, and the holder is to hear of it while it works.
//!
//! inotify could tell immediately, but of every release of every lock as well. A look each second costs
//! nothing while locks come and go.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use super::directory::Directory;
use super::lock_file::LockFile;
use crate::LockError;
use crate::backend::{Lease, LossReason};
use crate::outage::Repeated;
use crate::panics::catch;

/// How long a loss goes unnoticed at most.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// The thread ends after this many looks at nothing.
const IDLE_LOOKS: u32 = 10;

/// A lock that is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) name: Arc<str>,
    pub(super) file: LockFile,
    pub(super) lease: Lease,
    /// Set before the file is removed by its own holder.
    pub(super) released: AtomicBool,
    /// Who took it: a forked child has a copy that is not its own.
    pub(super) process: u32,
}

#[derive(Debug)]
pub(super) struct Keeper {
    directory: Arc<Directory>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<u64, Arc<Held>>,
    last: u64,
    running: Option<Thread>,
}

impl Keeper {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self {
            directory,
            state: Mutex::default(),
        }
    }

    /// Looks after this lock until it is forgotten.
    pub(super) fn keep(self: &Arc<Self>, held: &Arc<Held>) -> Result<u64, LockError> {
        let mut state = self.state();
        if state.running.is_none() {
            let keeper = Arc::clone(self);
            let thread = thread::Builder::new().name("lock-keeper".to_owned());
            let started = thread.spawn(move || keeper.run());
            let started = started.map_err(
                self.directory
                    .failed("start a thread that looks after locks"),
            )?;
            state.running = Some(started.thread().clone());
        }
        state.last += 1;
        let key = state.last;
        state.held.insert(key, Arc::clone(held));
        Ok(key)
    }

    pub(super) fn forget(&self, key: u64) {
        let forgotten = self.state().held.remove(&key);
        // It may be the last, and then closes the file: outside the mutex.
        drop(forgotten);
    }

    /// The thread that looks, while there is one: woken, it ends if there is no store left to take a lock in.
    pub(super) fn thread(&self) -> Option<Thread> {
        self.state().running.clone()
    }

    /// Ends all leases; gives how many.
    pub(super) fn lose(&self, reason: LossReason) -> usize {
        let mut all: Vec<_> = self.state().held.values().cloned().collect();
        all.retain(|held| held.lease.is_valid());
        all.iter().for_each(|held| held.lease.lose(reason));
        all.len()
    }

    /// The directory is not the one that others see: all locks in it are lost.
    pub(super) fn lose_all(&self) {
        let locks = self.lose(LossReason::Revoked);
        if locks > 0 {
            tracing::error!(
                directory = %self.directory.path().display(),
                locks,
                "the lock directory was removed or replaced while locks in it were held; they are lost"
            );
        }
    }

    fn run(self: &Arc<Self>) {
        let mut idle = 0;
        loop {
            thread::park_timeout(EVERY);
            let mut state = self.state();
            let all: Vec<_> = state.held.values().cloned().collect();
            idle = if all.is_empty() { idle + 1 } else { 0 };
            // Nothing to do for a while, or for good.
            if idle == IDLE_LOOKS || (idle > 0 && Arc::strong_count(self) == 1) {
                // Under the mutex: the next caller starts another thread.
                state.running = None;
                return;
            }
            drop(state);
            // What a loss wakes, and the logger, are the application's: a panic of theirs is no end of
            // the looks.
            if let Err(reason) = catch(|| self.look_at(&all)) {
                static PANICS: Repeated = Repeated::new();
                let _ = catch(|| {
                    PANICS.happened(&reason, |times| {
                        tracing::error!(
                            reason,
                            times,
                            "a look at the locks that are held panicked"
                        );
                    });
                });
            }
        }
    }

    fn look_at(&self, all: &[Arc<Held>]) {
        if all.is_empty() {
            return;
        }
        // An error is no answer: the next look may get one.
        if let Ok(false) = self.directory.is_in_place() {
            return self.lose_all();
        }
        let mut removed = Vec::new();
        for held in all {
            let Ok(look) = held.file.look(&self.directory, &held.name) else {
                continue;
            };
            // Told of once.
            let is_ours = !held.released.load(Ordering::Acquire) && held.lease.is_valid();
            if !look.in_place && is_ours {
                held.lease.lose(LossReason::Revoked);
                removed.push(&*held.name);
                tracing::debug!(
                    file = &*held.name,
                    "its lock file was removed: the lock is lost"
                );
            }
        }
        // Who removes one mostly removes all.
        if let Some(file) = removed.first() {
            static REMOVED: Repeated = Repeated::new();
            let directory = self.directory.path().display().to_string();
            REMOVED.happened(&directory, |times| {
                tracing::error!(
                    directory,
                    file,
                    locks = removed.len(),
                    times,
                    "a lock file was removed while its lock was held; the lock is lost"
                );
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::lock_file::{self, Taken};

    #[test]
    fn a_removed_file_is_a_loss_unless_its_holder_removed_it() {
        let base = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(&base.path().join("locks")).unwrap());
        let keeper = Keeper::new(Arc::clone(&directory));
        let [lost, released, held] =
            [("a", false), ("b", true), ("c", false)].map(|(name, released)| {
                let Taken::Ours(file) = lock_file::take(&directory, name, false).unwrap() else {
                    panic!("nobody holds it");
                };
                Arc::new(Held {
                    name: name.into(),
                    file,
                    lease: Lease::unbounded(),
                    released: AtomicBool::new(released),
                    process: std::process::id(),
                })
            });
        directory.unlink("a").unwrap();
        directory.unlink("b").unwrap();
        keeper.look_at(&[&lost, &released, &held].map(Arc::clone));
        assert_eq!(lost.lease.reason(), Some(LossReason::Revoked));
        assert!(released.lease.is_valid() && held.lease.is_valid());
    }

    #[test]
    fn the_thread_ends_with_the_last_who_could_hold_a_lock() {
        let base = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(&base.path().join("locks")).unwrap());
        let keeper = Arc::new(Keeper::new(Arc::clone(&directory)));
        let Taken::Ours(file) = lock_file::take(&directory, "a", false).unwrap() else {
            panic!("nobody holds it");
        };
        let held = Arc::new(Held {
            name: "a".into(),
            file,
            lease: Lease::unbounded(),
            released: AtomicBool::new(false),
            process: std::process::id(),
        });
        let key = keeper.keep(&held).unwrap();
        keeper.forget(key);
        let gone = Arc::downgrade(&keeper);
        drop(keeper);
        let dropped = std::time::Instant::now();
        while gone.upgrade().is_some() {
            assert!(dropped.elapsed() < 5 * EVERY, "it goes on");
            thread::sleep(EVERY / 20);
        }
    }
}
