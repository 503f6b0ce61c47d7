//! Where clients write down what they do.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lock_core::backend::{BootClock, Clock};

use super::{Action, Event, Stage, nanos};

/// A part of a history: what one process, or several that are only called so, wrote down. Clones
/// are the same journal.
#[derive(Clone)]
pub struct Journal {
    process: Arc<str>,
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    operations: AtomicU64,
    pages: Mutex<Pages>,
}

enum Pages {
    Memory(Vec<Event>),
    File(File),
}

impl Journal {
    /// One that is kept in memory.
    #[must_use]
    pub fn in_memory(process: &str) -> Self {
        Self::on_clock(process, Arc::new(BootClock))
    }

    /// One that is kept in memory, by another clock.
    #[must_use]
    pub fn on_clock(process: &str, clock: Arc<dyn Clock>) -> Self {
        Self::new(process, clock, Pages::Memory(Vec::new()))
    }

    /// One that is kept in a file, and survives that the process is killed.
    ///
    /// # Errors
    ///
    /// The file cannot be made, or is there already.
    pub fn create(path: &Path, process: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)?;
        Ok(Self::new(process, Arc::new(BootClock), Pages::File(file)))
    }

    fn new(process: &str, clock: Arc<dyn Clock>, pages: Pages) -> Self {
        Self {
            process: process.into(),
            shared: Arc::new(Shared {
                clock,
                operations: AtomicU64::new(0),
                pages: Mutex::new(pages),
            }),
        }
    }

    /// The same journal in the name of another process.
    #[must_use]
    pub fn of(&self, process: &str) -> Self {
        Self {
            process: process.into(),
            shared: Arc::clone(&self.shared),
        }
    }

    /// Starts an operation on a lock.
    #[must_use]
    pub fn operation(&self, lock: &impl fmt::Display) -> Operation {
        let number = self.shared.operations.fetch_add(1, Ordering::Relaxed);
        Operation {
            journal: self.clone(),
            op: number.to_string(),
            lock: lock.to_string(),
            shared: false,
        }
    }

    /// An operation that has a name: a fault that hits the process of this journal and a lock, or
    /// all locks if that is empty; the word of a resource.
    #[must_use]
    pub fn named(&self, op: &str, lock: &impl fmt::Display) -> Operation {
        Operation {
            journal: self.clone(),
            op: op.to_owned(),
            lock: lock.to_string(),
            shared: false,
        }
    }

    /// The time now, in nanoseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        nanos(self.shared.clock.now())
    }

    /// When something that is left for so long from now will be over.
    #[must_use]
    pub fn after(&self, left: Duration) -> u64 {
        self.now().saturating_add(nanos(left))
    }

    /// Takes out what was written into memory. One in a file is [read](Self::read) instead.
    #[must_use]
    pub fn take(&self) -> Vec<Event> {
        let mut pages = self
            .shared
            .pages
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &mut *pages {
            Pages::Memory(events) => std::mem::take(events),
            Pages::File(_) => Vec::new(),
        }
    }

    /// Reads a journal from its file. A last line that is cut off is left out: its process was
    /// killed while it wrote.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or has a line that is no event.
    pub fn read(path: &Path) -> io::Result<Vec<Event>> {
        let text = std::fs::read_to_string(path)?;
        let whole = text.rfind('\n').map_or("", |last| &text[..last]);
        let events = whole.lines().map(serde_json::from_str);
        events.collect::<Result<_, _>>().map_err(io::Error::from)
    }

    fn write(&self, event: Event) {
        let mut pages = self
            .shared
            .pages
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &mut *pages {
            Pages::Memory(events) => events.push(event),
            Pages::File(file) => {
                let mut line = serde_json::to_string(&event).expect("an event is JSON");
                line.push('\n');
                // In one piece, and from here on it is the kernel's.
                let written = file.write_all(line.as_bytes());
                written.expect("a history without a gap, or none");
            }
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

/// An operation that is written down step by step.
#[derive(Clone, Debug)]
pub struct Operation {
    journal: Journal,
    op: String,
    lock: String,
    /// Whether it is a reader's.
    shared: bool,
}

impl Operation {
    /// The same operation as a reader's.
    #[must_use]
    pub fn shared(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }

    /// Writes down a step.
    pub fn note(&self, f: Action, stage: Stage) {
        self.write(f, stage, None, None);
    }

    /// Writes down a step that has a token.
    pub fn note_token(&self, f: Action, stage: Stage, token: Option<u64>) {
        self.write(f, stage, token, None);
    }

    /// Writes down a step with the time until which the lock is ours, or is waited for.
    pub fn note_until(&self, f: Action, stage: Stage, until: Option<u64>) {
        self.write(f, stage, None, until);
    }

    /// Writes down a step with both.
    pub fn write(&self, f: Action, stage: Stage, token: Option<u64>, until: Option<u64>) {
        self.write_at(self.journal.now(), f, stage, token, until);
    }

    fn write_at(&self, t_ns: u64, f: Action, stage: Stage, token: Option<u64>, until: Option<u64>) {
        self.journal.write(Event {
            t_ns,
            process: self.journal.process.as_ref().to_owned(),
            op: self.op.clone(),
            lock: self.lock.clone(),
            f,
            stage,
            shared: self.shared && f == Action::Acquire && stage == Stage::Invoke,
            token,
            valid_until_ns: until,
        });
    }

    /// Writes down a fault that has been there since this time, and is over.
    pub fn note_since(&self, began: u64) {
        let event = |t_ns, stage| Event {
            t_ns,
            process: self.journal.process.as_ref().to_owned(),
            op: self.op.clone(),
            lock: self.lock.clone(),
            f: Action::Fault,
            stage,
            shared: false,
            token: None,
            valid_until_ns: None,
        };
        self.journal.write(event(began, Stage::Invoke));
        self.journal.write(event(self.journal.now(), Stage::Ok));
    }

    /// Writes down that a lock is asked for, and how long that waits.
    pub fn ask(&self, wait: Duration) {
        self.asked(self.journal.now(), wait);
    }

    /// Writes down that a lock was asked for at this time.
    pub fn asked(&self, at: u64, wait: Duration) {
        let until = at.checked_add(nanos(wait));
        self.write_at(at, Action::Acquire, Stage::Invoke, None, until);
    }
}
