//! The backend, and how it is opened.

use std::fmt;
use std::future::{Future, pending};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::attempt::{Outcome, try_take};
use super::blocking::off_the_runtime;
use super::directory;
use super::grant::FileGrant;
use super::keeper;
use super::key::file_stem;
use super::listing;
use super::lock_file::SUFFIX;
use super::signature::{self, Seen, Signature};
use super::store::Store;
use crate::backend::{Attempt, Backend, LockRequest, Providers};
use crate::instance::Instance;
use crate::{Holder, Listing, LockError, LockName, LossReason, plain_text};

/// For so long after the directory was found displaced nothing is granted: until the holders in
/// every process have noticed, with time to spare.
const SETTLE: Duration = keeper::EVERY.saturating_mul(2);

/// How often a new file that is not signed is looked at for its holder, and the time between.
const LOOKS: u32 = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Locks for the processes of one machine. See the [module](super) for its rules.
///
/// Clones share one backend; two backends over one directory exclude each other like two processes.
///
/// A try that is answered within milliseconds of a release here can be answered "held" although no process
/// holds the lock: it has been promised to one who waits elsewhere.
#[derive(Clone)]
pub struct FileBackend(Arc<Inner>);

struct Inner {
    path: PathBuf,
    polls: bool,
    namespace: String,
    signature: Signature,
    state: Mutex<State>,
    providers: Providers,
    /// One probe at a time: where the disk stalls, one thread waits for it.
    probing: Turns,
    /// One listing at a time, likewise.
    listing: Turns,
}

/// Locked by the call that has the turn.
type Turns = Arc<tokio::sync::Mutex<()>>;

enum State {
    Open(Arc<Store>),
    /// The path led to another directory, or to none.
    Displaced(Instant),
    Closed,
}

/// Sets up a [`FileBackend`].
///
/// # Default
///
/// - the namespace is empty
/// - the instance is `host:pid`
/// - the directory is watched, on Linux
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `open`"]
pub struct FileBackendBuilder {
    path: PathBuf,
    polls: bool,
    namespace: String,
    instance: String,
}

impl FileBackend {
    /// Opens the lock directory, and creates it if only its last component is missing.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured), with what to do, if it is not a
    /// private directory of ours on a local file system that can be written, or begins or ends with a
    /// blank, and
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) if that file system is full or the process
    /// has no file descriptors left.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, LockError> {
        Self::builder(directory).open()
    }

    /// Sets up a backend over this directory.
    pub fn builder(directory: impl AsRef<Path>) -> FileBackendBuilder {
        FileBackendBuilder {
            path: directory.as_ref().to_owned(),
            polls: false,
            namespace: String::new(),
            instance: String::new(),
        }
    }

    /// The directory to use when none is given: `distributed-lock` in `XDG_RUNTIME_DIR` if that is a
    /// directory of this user, else `distributed-lock-{uid}` in the directory for temporary files.
    ///
    /// A session of a user has the variable set and a service or a cron job has not: give those
    /// that are to exclude each other one directory.
    #[must_use]
    pub fn default_dir() -> PathBuf {
        directory::default_path()
    }

    /// The lock directory, from the root.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.0.path
    }

    /// Runs what can take as long as a disk does, one at a time, on a thread for that.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what has begun goes on, and keeps its turn.
    async fn in_turn<T: Send + 'static>(
        &self,
        turns: &Turns,
        work: impl FnOnce(&Inner) -> Result<T, LockError> + Send + 'static,
    ) -> Result<T, LockError> {
        let turn = Arc::clone(turns).lock_owned().await;
        let inner = Arc::clone(&self.0);
        let done = off_the_runtime(move || {
            let done = work(&inner);
            drop(turn);
            done
        });
        done.await.unwrap_or_else(|| {
            let none = "no thread could be started to look at the lock directory";
            Err(LockError::unavailable(none))
        })
    }
}

impl FileBackendBuilder {
    /// Keeps the locks of two applications that share a directory apart. [What
    /// counts](crate::LockSettings#text) are its characters, but for blanks at the ends.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// What this process is called in the files of the locks that it holds; see
    /// [`LockSettings::instance`](crate::LockSettings::instance). By default a child that was forked is called
    /// by its own number.
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = instance.into();
        self
    }

    /// Whether waiters only ask again for a lock, after 1 ms at first and every 50 ms later, and the directory
    /// is not watched for releases: for where inotify is not allowed or used up. On systems without inotify
    /// waiters always poll.
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, file::FileBackend};
    /// # fn main() -> Result<(), LockError> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let directory = directory.path().join("locks");
    /// let locks = LockProvider::new(FileBackend::builder(&directory).polling(true).open()?);
    /// # Ok(()) }
    /// ```
    pub fn polling(mut self, on: bool) -> Self {
        self.polls = on;
        self
    }

    /// Opens the lock directory.
    ///
    /// # Errors
    ///
    /// See [`FileBackend::open`].
    pub fn open(self) -> Result<FileBackend, LockError> {
        let namespace = plain_text::namespace(&self.namespace)?;
        plain_text::check_path(&self.path)?;
        let instance = Instance::of(&self.instance)?;
        let store = Arc::new(Store::open(&self.path, self.polls)?);
        Ok(FileBackend(Arc::new(Inner {
            path: store.directory.path().to_owned(),
            polls: self.polls,
            namespace: namespace.to_owned(),
            signature: Signature::of(&instance),
            state: Mutex::new(State::Open(store)),
            providers: Providers::default(),
            probing: Arc::default(),
            listing: Arc::default(),
        })))
    }
}

impl Inner {
    fn file_name(&self, name: &LockName) -> Arc<str> {
        let mut file = file_stem(&self.namespace, name);
        file.push_str(SUFFIX);
        file.into()
    }

    /// The open directory; one that was displaced is opened anew after a while.
    fn store(&self) -> Result<Arc<Store>, LockError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Open(store) => Ok(Arc::clone(store)),
            State::Closed => Err(LockError::closed()),
            State::Displaced(since) if since.elapsed() < SETTLE => Err(self.displaced()),
            State::Displaced(_) => {
                let store = Arc::new(Store::open(&self.path, self.polls)?);
                *state = State::Open(Arc::clone(&store));
                Ok(store)
            }
        }
    }

    /// Other processes use another directory now, or will: nothing that was granted in this one
    /// excludes them.
    fn displace(&self, store: &Arc<Store>) -> LockError {
        store.keeper.lose_all();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was = match &*state {
            State::Open(open) if Arc::ptr_eq(open, store) => Some(std::mem::replace(
                &mut *state,
                State::Displaced(Instant::now()),
            )),
            // Another thread saw it first.
            _ => None,
        };
        drop(state);
        if was.is_some() {
            tracing::error!(
                directory = %self.path.display(),
                "the lock directory was removed or replaced; nothing is granted for a moment, \
                 and then in the directory that is there"
            );
        }
        self.displaced()
    }

    /// The directory is not kept open any more, but by grants that are left.
    fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was = std::mem::replace(&mut *state, State::Closed);
        drop(state);
        if let State::Open(store) = was {
            store.keeper.lose(LossReason::Shutdown);
            let keeper = store.keeper.thread();
            drop(store);
            keeper.inspect(Thread::unpark);
        }
    }

    /// Who holds this lock.
    fn look(&self, file: &str, is_last: bool) -> Result<Seen, LockError> {
        let store = self.store()?;
        let seen = signature::look(&store.directory, file, is_last)?;
        if !store.directory.is_in_place()? {
            return Err(self.displace(&store));
        }
        Ok(seen)
    }

    /// What is held.
    fn list(&self, limit: usize) -> Result<Listing, LockError> {
        let store = self.store()?;
        let held = listing::list(&store.directory, limit)?;
        if !store.directory.is_in_place()? {
            return Err(self.displace(&store));
        }
        Ok(Listing::new(held, limit))
    }

    /// Whether a lock file could be created now.
    fn probe(&self) -> Result<(), LockError> {
        let store = self.store()?;
        if !store.directory.is_in_place()? {
            return Err(self.displace(&store));
        }
        store.directory.probe()
    }

    fn displaced(&self) -> LockError {
        LockError::unavailable(format!(
            "the lock directory {} was removed or replaced while it was in use, and the locks in it \
             were lost; leave it alone, and see that no cleaner of old files visits it",
            self.path.display()
        ))
    }

    fn try_acquire(&self, request: &LockRequest) -> Result<Attempt<FileGrant>, LockError> {
        let store = self.store()?;
        let name = self.file_name(request.name());
        match try_take(&store, &name, request.mode(), &self.signature)? {
            Outcome::Granted(grant) => Ok(Attempt::Granted(grant)),
            Outcome::Held(retry_in) => Ok(Attempt::Held {
                retry_in: Some(retry_in),
            }),
            Outcome::Displaced => Err(self.displace(&store)),
        }
    }
}

impl Backend for FileBackend {
    type Grant = FileGrant;

    const KIND: &'static str = "file";

    const IMMEDIATE: bool = true;

    const SHARED: bool = true;

    async fn try_acquire(&self, request: &LockRequest) -> Result<Attempt<FileGrant>, LockError> {
        self.0.try_acquire(request)
    }

    fn changed(&self, request: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        // An error is the next try's to tell.
        let registered = self.0.store().ok().map(|store| {
            let name = self.0.file_name(request.name());
            let is_writer = !request.is_shared();
            let writer = is_writer.then(|| store.writers.begin(Arc::clone(&name)));
            (store.watch.register(name), writer)
        });
        async move {
            match registered {
                Some((registration, _writer)) => registration.changed().await,
                None => pending().await,
            }
        }
    }

    async fn holder(&self, name: &LockName) -> Result<Option<Holder>, LockError> {
        let file = self.0.file_name(name);
        let mut looks = 1..LOOKS;
        loop {
            match self.0.look(&file, looks.next().is_none())? {
                Seen::Held(holder) => return Ok(Some(holder)),
                Seen::Free => return Ok(None),
                Seen::Unsigned => sleep(LOOK_AGAIN).await,
            }
        }
    }

    async fn list(&self, limit: usize) -> Result<Listing, LockError> {
        let list = move |inner: &Inner| inner.list(limit);
        self.in_turn(&self.0.listing, list).await
    }

    fn instance(&self) -> Option<String> {
        Some(self.0.signature.instance(std::process::id()))
    }

    async fn health(&self) -> Result<(), LockError> {
        self.in_turn(&self.0.probing, Inner::probe).await
    }

    fn providers(&self) -> Option<&Providers> {
        Some(&self.0.providers)
    }

    async fn close(&self) {
        self.0.close();
    }
}

impl fmt::Debug for FileBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBackend")
            .field("directory", &self.0.path)
            .field("namespace", &self.0.namespace)
            .finish_non_exhaustive()
    }
}
