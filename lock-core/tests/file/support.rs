//! What the tests share: a directory, tries without a runtime, a detector of overlaps.

use std::fs::{self, OpenOptions};
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use lock_core::backend::{Attempt, Backend, Lease, LockRequest};
use lock_core::file::{FileBackend, FileGrant};
use lock_core::{LockMode, LockName};

/// A directory to keep lock directories in.
pub(crate) struct Base(tempfile::TempDir);

impl Base {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.path().join("locks")
    }

    pub(crate) fn backend(&self) -> FileBackend {
        FileBackend::open(self.locks()).unwrap()
    }

    /// The lock files that are there, and those of writers that wait.
    pub(crate) fn lock_files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.locks())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        files
            .filter(|path| {
                path.extension()
                    .is_some_and(|end| end == "lock" || end == "wait")
            })
            .collect()
    }
}

pub(crate) fn request(name: &str) -> LockRequest {
    LockRequest::new(name.parse::<LockName>().unwrap())
}

/// The answer of a future that is ready.
pub(crate) fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not ready at the first poll"),
    }
}

/// One try.
pub(crate) fn take(backend: &FileBackend, lock: &str) -> Option<FileGrant> {
    match at_once(backend.try_acquire(&request(lock))).unwrap() {
        Attempt::Granted(grant) => Some(grant),
        Attempt::Held { .. } => None,
    }
}

/// The same of a reader.
pub(crate) fn read(backend: &FileBackend, lock: &str) -> Option<FileGrant> {
    match at_once(backend.try_acquire(&request(lock).with_mode(LockMode::Shared))).unwrap() {
        Attempt::Granted(grant) => Some(grant),
        Attempt::Held { .. } => None,
    }
}

/// Runs a future where there is no runtime.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Panics when two are inside together, also in two processes, and counts who was inside without any
/// lock of its own.
pub(crate) struct Detector {
    inside: PathBuf,
    count: PathBuf,
}

impl Detector {
    pub(crate) fn new(base: &Path, lock: &str) -> Self {
        let file = lock.replace(':', "-");
        Self {
            inside: base.join(format!("{file}.inside")),
            count: base.join(format!("{file}.count")),
        }
    }

    pub(crate) fn visit(&self) {
        let entered = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.inside);
        entered.unwrap_or_else(|error| panic!("two hold {}: {error}", self.inside.display()));
        let count = self.count() + 1;
        // Opened and closed: one that comes between the read and the write loses a count.
        let mut file = fs::File::create(&self.count).unwrap();
        file.write_all(count.to_string().as_bytes()).unwrap();
        fs::remove_file(&self.inside).unwrap();
    }

    pub(crate) fn count(&self) -> u64 {
        match fs::read_to_string(&self.count) {
            Ok(text) => text.parse().unwrap(),
            Err(_) => 0,
        }
    }
}

/// Returns when a lock is lost that something was done to just now: within two seconds, less what the threads of
/// this process have waited for a processor.
#[track_caller]
pub(crate) fn until_lost(lease: &Lease) {
    let (began, before) = (Instant::now(), queued());
    while lease.is_valid() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "the loss was not noticed"
        );
        thread::sleep(Duration::from_millis(10));
    }
    // How long a thread has waited is known once it runs.
    let (took, queued) = (began.elapsed(), queued().saturating_sub(before));
    assert!(
        took.saturating_sub(queued) < Duration::from_secs(2),
        "noticed after {took:?}, of which {queued:?} can be the machine's"
    );
}

/// How long the threads of this process have waited for a processor so far.
fn queued() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let waited = tasks.map(|task| {
        // A thread can have ended meanwhile.
        let stat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(waited.flatten().sum::<u64>())
}
