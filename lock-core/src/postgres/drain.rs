//! Empties the listener of a connection while a statement runs on that, so that a flood of
//! notifications takes no memory.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sqlx::postgres::PgListener;

use crate::LockError;

/// Between looks while statements run: what arrives within it is kept, by the driver.
const TICK: Duration = Duration::from_millis(10);

/// After so many looks without a statement the thread sleeps until the next.
const LOOKS: u32 = 20;

/// How many bytes of payloads are kept; what comes after that is dropped.
const KEPT: usize = 1 << 20;

/// The thread, and the listener while a statement runs.
pub(super) struct Drain {
    shared: Arc<Mutex<Shared>>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    listener: Option<PgListener>,
    kept: Vec<Box<str>>,
    bytes: usize,
    has_more: bool,
    is_asleep: bool,
    is_over: bool,
}

/// What has come of a listener.
pub(super) struct Drained {
    pub(super) listener: Option<PgListener>,
    /// The payloads of the first notifications.
    pub(super) kept: Vec<Box<str>>,
    /// Whether others were dropped.
    pub(super) has_more: bool,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drain {
    pub(super) fn new() -> Result<Self, LockError> {
        let shared = Arc::<Mutex<Shared>>::default();
        let seen = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("distributed-lock-drain".to_owned())
            .spawn(move || run(&seen))
            .map_err(|error| {
                LockError::unavailable("no thread could be started").with_source(error)
            })?;
        Ok(Self { shared, thread })
    }

    /// A statement begins.
    pub(super) fn begin(&self, listener: PgListener) {
        let mut shared = lock(&self.shared);
        shared.listener = Some(listener);
        if mem::take(&mut shared.is_asleep) {
            self.thread.thread().unpark();
        }
    }

    /// It has ended.
    pub(super) fn end(&self) -> Drained {
        let mut shared = lock(&self.shared);
        shared.bytes = 0;
        Drained {
            listener: shared.listener.take(),
            kept: mem::take(&mut shared.kept),
            has_more: mem::take(&mut shared.has_more),
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.is_over = true;
        // Its drop needs the runtime of this thread.
        let listener = shared.listener.take();
        drop(shared);
        self.thread.thread().unpark();
        drop(listener);
    }
}

fn run(shared: &Mutex<Shared>) {
    let mut idle = 0;
    loop {
        let mut seen = lock(shared);
        if seen.is_over {
            return;
        }
        idle = if seen.listener.is_some() { 0 } else { idle + 1 };
        seen.keep();
        seen.is_asleep = idle >= LOOKS;
        let is_asleep = seen.is_asleep;
        drop(seen);
        if is_asleep {
            thread::park();
            idle = 0;
        } else {
            thread::park_timeout(TICK);
        }
    }
}

impl Shared {
    fn keep(&mut self) {
        let Some(listener) = &mut self.listener else {
            return;
        };
        while let Some(notification) = listener.next_buffered() {
            if self.bytes < KEPT {
                // A copy: what was received with it is not kept.
                let payload = notification.payload();
                self.bytes += payload.len() + size_of::<Box<str>>();
                self.kept.push(payload.into());
            } else {
                self.has_more = true;
            }
        }
    }
}
