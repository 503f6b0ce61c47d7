//! What locks protect, and what refuses a writer that comes too late.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use lock_core::LockName;

/// A number for each lock that is only raised by who has a token at least as new as the newest.
pub trait Resource: Clone + Send + Sync + 'static {
    /// Raises the number; whether the token was accepted.
    ///
    /// # Errors
    ///
    /// No answer: it may have been raised.
    fn write(&self, lock: &LockName, token: u64) -> impl Future<Output = io::Result<bool>> + Send;

    /// What it has come to.
    ///
    /// # Errors
    ///
    /// No answer.
    fn state(&self, lock: &LockName) -> impl Future<Output = io::Result<State>> + Send;
}

/// What was written to a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// How many writes were accepted.
    pub writes: u64,
    /// The newest token.
    pub newest: u64,
}

impl State {
    /// The state after a write with this token, if it is accepted.
    fn after(self, token: u64) -> Option<Self> {
        (token >= self.newest).then_some(Self {
            writes: self.writes + 1,
            newest: token,
        })
    }
}

/// Resources in the files of a directory, for processes.
#[derive(Clone, Debug)]
pub struct FileResource(PathBuf);

impl FileResource {
    /// Those in this directory.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn open(directory: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = directory.into();
        fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    /// Changes the state under a lock of the file. On a thread that may block: a process can be
    /// frozen while it has that lock.
    async fn change<T: Send + 'static>(
        &self,
        lock: &LockName,
        change: impl FnOnce(&File, State) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let path = self.0.join(lock.to_string());
        let changing = tokio::task::spawn_blocking(move || {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).open(path)?;
            file.lock()?;
            change(&file, read(&file)?)
        });
        changing.await?
    }
}

impl Resource for FileResource {
    async fn write(&self, lock: &LockName, token: u64) -> io::Result<bool> {
        let write = move |file: &File, state: State| {
            let Some(State { writes, newest }) = state.after(token) else {
                return Ok(false);
            };
            // Both in one write, which a kill does not cut in two.
            let bytes = [writes.to_le_bytes(), newest.to_le_bytes()].concat();
            file.write_all_at(&bytes, 0).map(|()| true)
        };
        self.change(lock, write).await
    }

    async fn state(&self, lock: &LockName) -> io::Result<State> {
        self.change(lock, |_, state| Ok(state)).await
    }
}

/// An empty file is a resource that was never written.
fn read(file: &File) -> io::Result<State> {
    if file.metadata()?.len() == 0 {
        return Ok(State::default());
    }
    let (mut writes, mut newest) = ([0; 8], [0; 8]);
    file.read_exact_at(&mut writes, 0)?;
    file.read_exact_at(&mut newest, 8)?;
    Ok(State {
        writes: u64::from_le_bytes(writes),
        newest: u64::from_le_bytes(newest),
    })
}

/// Resources in memory, for one process.
#[derive(Clone, Debug, Default)]
pub struct MemoryResource {
    states: Arc<Mutex<HashMap<LockName, State>>>,
    accepts_all: bool,
}

impl MemoryResource {
    /// One that does not look at tokens: a check must find that.
    #[must_use]
    pub fn without_fence() -> Self {
        Self {
            accepts_all: true,
            ..Self::default()
        }
    }
}

impl Resource for MemoryResource {
    async fn write(&self, lock: &LockName, token: u64) -> io::Result<bool> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let state = states.entry(lock.clone()).or_default();
        let forged = State {
            writes: state.writes + 1,
            newest: token,
        };
        let after = state.after(token).or(self.accepts_all.then_some(forged));
        *state = after.unwrap_or(*state);
        Ok(after.is_some())
    }

    async fn state(&self, lock: &LockName) -> io::Result<State> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(states.get(lock).copied().unwrap_or_default())
    }
}
