//! What applications hold: a backend, joined to the queue, the policies and the metrics.

mod acquire;
mod activity;
mod builder;
mod by_name;
mod claim;
mod closing;
mod connect;
mod exchange;
mod holder;
mod installed;
mod lines;
mod list;
mod many;
mod server;
mod shutdown;
mod slots;
mod wait;

use std::fmt;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

pub use acquire::Acquire;
pub use builder::LockProviderBuilder;
pub(crate) use closing::Closing;
pub(crate) use lines::{Queue, Reading, Turn};
pub use server::Server;
pub use shutdown::Shutdown;
use slots::Seeking;

use crate::backend::{Backend, DynBackend, erase};
use crate::health::Companion;
use crate::lease::{Latch, Registration};
use crate::nesting::Watch;
use crate::observe::Observer;
use crate::{DistributedLock, Health, LockError, LockName, queue};

/// The queue of those who seek one of so many slots: what the first has found out goes to the next.
type Seekers = queue::Queue<(LockName, usize), Seeking, ()>;
type SeekersTurn = queue::Turn<(LockName, usize), Seeking, ()>;

/// Where locks come from. Cheap to clone; all clones share one queue.
///
/// ```
/// use std::time::Duration;
/// use lock_core::{LockError, LockProvider, memory::MemoryBackend};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// let locks = LockProvider::new(MemoryBackend::new());
///
/// match locks.try_acquire("order:process:42", Duration::from_secs(5)).await? {
///     Some(guard) => {
///         // .. no other task of any instance processes order 42 ..
///         guard.release().await?;
///     }
///     None => println!("another held the lock for all of the 5 s"),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct LockProvider {
    pub(crate) shared: Arc<Shared>,
}

/// What all clones of a provider, its guards and its commands share.
pub(crate) struct Shared {
    pub(crate) backend: Box<dyn DynBackend>,
    pub(crate) queue: Arc<Queue>,
    seekers: Arc<Seekers>,
    pub(crate) observer: Observer,
    pub(crate) nesting: Arc<Watch>,
    pub(crate) response_timeout: Duration,
    /// How long a lock is handed over in this process before it is released to the store.
    pub(crate) local_handover: Duration,
    /// Set when the provider is shut down.
    closing: Latch,
    /// What is configured and does not hold the locks.
    companions: Vec<Box<dyn Companion>>,
}

impl LockProvider {
    /// A provider of the locks of this backend, with the default of every option.
    pub fn new(backend: impl Backend) -> Self {
        Self::builder(backend).build()
    }

    /// Begins a provider with options.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockProvider, memory::MemoryBackend};
    /// let locks = LockProvider::builder(MemoryBackend::new())
    ///     .response_timeout(Duration::from_millis(500))
    ///     .build();
    /// ```
    pub fn builder(backend: impl Backend) -> LockProviderBuilder {
        LockProviderBuilder::new(erase(backend))
    }

    /// The lock of this name. Nothing is locked yet, and the backend is not asked.
    ///
    /// A text is a whole name, and nothing in it is escaped: `format!("order:process:{id}")` with the
    /// id `7:8` is a valid name, of `order:process:7:8`. Names with values in them are made by
    /// [`LockName::new`] or the macro `lock_name!`, which escape each value; then different values never
    /// give one name.
    ///
    /// ```
    /// # use lock_core::{LockError, LockName, LockProvider, memory::MemoryBackend};
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let id = "7:8";
    /// let lock = locks.lock(LockName::new("order", "process", id)?)?;
    /// assert_eq!(lock.name().as_str(), "order:process:7%3A8");
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidName`](crate::LockErrorKind::InvalidName) when the text is not a lock name.
    pub fn lock<N>(&self, name: N) -> Result<DistributedLock, LockError>
    where
        N: TryInto<LockName>,
        N::Error: Into<LockError>,
    {
        let name = name.try_into().map_err(Into::into)?;
        Ok(DistributedLock::new(self.clone(), name))
    }

    /// Asks the backend whether it could grant locks now, and the other servers of the
    /// [settings](crate::LockSettings) whether they are well; each for at most the response timeout.
    /// Takes no lock.
    ///
    /// ```
    /// # use lock_core::{LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let locks = LockProvider::new(MemoryBackend::new());
    /// let health = locks.health().await;
    /// assert!(health.is_up());
    /// for server in health.servers() {
    ///     println!("{}: {:?} after {:?}", server.name(), server.error(), server.latency());
    /// }
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn health(&self) -> Health {
        Health::join(self.servers().map(Server::into_health)).await
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = Server> {
        let companions = self.shared.companions.len();
        (0..=companions).map(|number| Server::new(&self.shared, number))
    }

    /// What kind of backend grants the locks: `memory`, `file`, ..
    #[must_use]
    pub fn backend(&self) -> &'static str {
        self.shared.backend.kind()
    }

    /// What this instance is called in the store, beside the locks that it holds: what its
    /// [`LOCK_INSTANCE`](crate::LockSettings::instance) says, by default `host:pid`. Asks no store.
    ///
    /// `None` where a [backend](Backend::instance) of another crate does not say.
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// let locks = LockProvider::new(MemoryBackend::new().with_instance("web-1:4711")?);
    /// assert_eq!(locks.instance().as_deref(), Some("web-1:4711"));
    /// # Ok::<(), LockError>(())
    /// ```
    #[must_use]
    pub fn instance(&self) -> Option<String> {
        self.shared.backend.instance()
    }
}

impl Shared {
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get().is_some()
    }

    /// Ready once the provider is shut down; else `waker` is woken then.
    pub(crate) fn poll_closing(&self, registration: &mut Registration, waker: &Waker) -> Poll<()> {
        self.closing.poll_set(registration, waker).map(drop)
    }

    pub(crate) fn forget_closing(&self, registration: &mut Registration) {
        self.closing.unregister(registration);
    }
}

impl fmt::Debug for LockProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockProvider")
            .field("backend", &self.backend())
            .finish_non_exhaustive()
    }
}
