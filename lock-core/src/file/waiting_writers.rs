//! The writers of this process that wait, and the turnstiles that they keep closed.
//!
//! A writer waits as long as it is registered for a change. It closes a turnstile once it was refused for readers: of
//! a lock that no reader uses nothing is written, and who waits for it takes no descriptor. The process has one
//! turnstile for each lock.
//!
//! Between two tries a writer drops its registration and makes another. So a turnstile is opened some time after the
//! last writer has left ([`LINGERS`]), unless that one was granted the lock: else readers would overtake a writer at
//! each of its tries. A thread sees to that, while a turnstile is closed.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::turnstile::{self, Turnstile};
use crate::LockError;
use crate::outage::Repeated;

/// For how long readers are kept out by a writer that is not registered: longer than from one registration to the
/// next.
const LINGERS: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct WaitingWriters {
    directory: Arc<Directory>,
    state: Mutex<State>,
    /// What the thread waits for: a turnstile to be opened later, or none left.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<Arc<str>, Waited>,
    is_running: bool,
}

/// A lock that writers wait for, or did a moment ago.
#[derive(Debug, Default)]
struct Waited {
    writers: usize,
    turnstile: Option<Turnstile>,
    /// Whether one of them was granted the lock since the last began to wait.
    is_served: bool,
    /// When it is opened, if no writer comes.
    opens_at: Option<Instant>,
}

/// A writer waits as long as this is there.
#[derive(Debug)]
pub(super) struct WaitingWriter {
    all: Arc<WaitingWriters>,
    name: Arc<str>,
}

impl WaitingWriters {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self {
            directory,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// A writer begins to wait for the lock of this name.
    pub(super) fn begin(self: &Arc<Self>, name: Arc<str>) -> WaitingWriter {
        let mut state = self.state();
        let waited = state.names.entry(Arc::clone(&name)).or_default();
        waited.writers += 1;
        waited.is_served = false;
        waited.opens_at = None;
        drop(state);
        let all = Arc::clone(self);
        WaitingWriter { all, name }
    }

    /// Readers hold this lock, or wait for it: if a writer of ours waits, new ones are kept out from now on.
    pub(super) fn close(self: &Arc<Self>, name: &str) -> Result<(), LockError> {
        let is_due = |waited: &Waited| waited.writers > 0 && waited.turnstile.is_none();
        if !self.state().names.get(name).is_some_and(is_due) {
            return Ok(());
        }
        let closed = turnstile::close(&self.directory, name)?;
        let mut state = self.state();
        let waited = state.names.get_mut(name).filter(|waited| is_due(waited));
        let spare = match waited {
            Some(waited) => {
                waited.turnstile = closed;
                None
            }
            // Another caller was first, or the writer has left meanwhile.
            None => closed,
        };
        let is_alone = spare.is_none() && !std::mem::replace(&mut state.is_running, true);
        drop(state);
        spare.into_iter().for_each(|spare| self.open(spare));
        if is_alone {
            let all = Arc::clone(self);
            let thread = thread::Builder::new().name("lock-turnstile".to_owned());
            if let Err(error) = thread.spawn(move || all.run()) {
                // Without it the turnstile would stay closed.
                let mut state = self.state();
                state.is_running = false;
                let waited = state.names.get_mut(name);
                let closed = waited.and_then(|waited| waited.turnstile.take());
                drop(state);
                closed.into_iter().for_each(|closed| self.open(closed));
                let doing = "start a thread for writers that wait";
                return Err(self.directory.failed(doing)(error));
            }
        }
        Ok(())
    }

    /// A writer of ours was granted this lock.
    pub(super) fn serve(&self, name: &str) {
        let mut state = self.state();
        if let Some(waited) = state.names.get_mut(name) {
            waited.is_served = true;
            if waited.writers == 0 {
                self.forget(state, name);
            }
        }
    }

    /// No writer waits for this lock any more.
    fn forget(&self, mut state: MutexGuard<'_, State>, name: &str) {
        let waited = state.names.remove(name);
        drop(state);
        if let Some(turnstile) = waited.and_then(|waited| waited.turnstile) {
            self.changed.notify_one();
            self.open(turnstile);
        }
    }

    /// Opens what lingers, until no turnstile is left.
    fn run(&self) {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let is_due = |waited: &Waited| waited.opens_at.is_some_and(|at| at <= now);
            let due: Vec<_> = state.names.extract_if(|_, waited| is_due(waited)).collect();
            if !due.is_empty() {
                drop(state);
                let turnstiles = due.into_iter().filter_map(|(_, waited)| waited.turnstile);
                turnstiles.for_each(|turnstile| self.open(turnstile));
                state = self.state();
                continue;
            }
            if !state
                .names
                .values()
                .any(|waited| waited.turnstile.is_some())
            {
                state.is_running = false;
                return;
            }
            let next = state.names.values().filter_map(|waited| waited.opens_at);
            state = match next.min() {
                Some(at) => {
                    let woken = self.changed.wait_timeout(state, at - now);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => (self.changed.wait(state)).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn open(&self, turnstile: Turnstile) {
        if let Err(error) = turnstile.open(&self.directory) {
            static FAILED: Repeated = Repeated::new();
            let directory = self.directory.path().display().to_string();
            FAILED.happened(&directory, |times| {
                tracing::warn!(
                    directory,
                    %error, times,
                    "the file of a writer that waited was not removed cleanly; readers clear it away"
                );
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WaitingWriter {
    fn drop(&mut self) {
        let mut state = self.all.state();
        let Some(waited) = state.names.get_mut(&self.name) else {
            return;
        };
        waited.writers -= 1;
        if waited.writers > 0 {
            return;
        }
        if waited.turnstile.is_some() && !waited.is_served {
            waited.opens_at = Some(Instant::now() + LINGERS);
            drop(state);
            self.all.changed.notify_one();
        } else {
            self.all.forget(state, &self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::lock_file::tests::{NAME, directory, until};

    fn waiting_writers() -> (tempfile::TempDir, Arc<WaitingWriters>) {
        let (base, directory) = directory();
        (base, Arc::new(WaitingWriters::new(Arc::new(directory))))
    }

    fn is_closed(all: &WaitingWriters) -> bool {
        let found = turnstile::look(&all.directory, NAME).unwrap();
        matches!(found, turnstile::Found::Closed(_))
    }

    #[test]
    fn readers_are_kept_out_while_a_writer_waits_and_from_one_try_of_it_to_the_next() {
        let (_base, all) = waiting_writers();
        all.close(NAME).unwrap();
        assert!(!is_closed(&all), "no writer waits");
        let mut writer = all.begin(NAME.into());
        assert!(!is_closed(&all), "no reader is in its way");
        for _ in 0..100 {
            all.close(NAME).unwrap();
            assert!(is_closed(&all));
            // The earlier one first, as between two tries.
            drop(writer);
            writer = all.begin(NAME.into());
        }
        drop(writer);
        until("it is open", || !is_closed(&all));
        until("the thread has ended", || !all.state().is_running);
    }

    #[test]
    fn a_writer_that_was_granted_the_lock_opens_it_unless_another_waits() {
        let (_base, all) = waiting_writers();
        let (one, other) = (all.begin(NAME.into()), all.begin(NAME.into()));
        all.close(NAME).unwrap();
        all.serve(NAME);
        drop(one);
        assert!(is_closed(&all));
        all.serve(NAME);
        drop(other);
        assert!(!is_closed(&all));
        // Also where the one that is granted the lock is not registered.
        drop(all.begin(NAME.into()));
        let lingering = all.begin(NAME.into());
        all.close(NAME).unwrap();
        drop(lingering);
        all.serve(NAME);
        assert!(!is_closed(&all));
        until("the thread has ended", || !all.state().is_running);
        // And there is another one for the next.
        let next = all.begin(NAME.into());
        all.close(NAME).unwrap();
        drop(next);
        until("it is open", || !is_closed(&all));
    }

    #[test]
    fn a_lock_that_no_reader_uses_costs_no_file() {
        let (base, all) = waiting_writers();
        drop(all.begin(NAME.into()));
        assert!(all.state().names.is_empty() && !all.state().is_running);
        let files = std::fs::read_dir(base.path().join("locks")).unwrap();
        assert_eq!(files.count(), 0);
    }
}
