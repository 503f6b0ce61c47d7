//! What applications hold: a backend, joined to the queue, the policies and the metrics.

mod acquire;
mod connect;
mod exchange;
mod installed;
mod many;
mod shutdown;

use std::fmt;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

pub use acquire::Acquire;
pub(crate) use acquire::Closing;

use crate::backend::{Backend, DynBackend, Granted, Held, erase};
use crate::health::Beside;
use crate::lease::{Latch, Registration};
use crate::nesting::Watch;
use crate::observe::Observer;
use crate::{DistributedLock, Health, LockError, LockName, ServerRole, queue};

/// The queue of locks: grants are handed on, holders are known by their hold.
pub(crate) type Queue = queue::Queue<LockName, Granted, Weak<Held>>;
pub(crate) type Turn = queue::Turn<LockName, Granted, Weak<Held>>;
pub(crate) type Ticket = queue::Ticket<LockName, Granted, Weak<Held>>;

/// How long a caller waits for one answer of the backend, unless configured.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// More is no bound.
const MAX_RESPONSE_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long a lock is handed over in this process before it is released to the store, unless configured.
const LOCAL_HANDOVER: Duration = Duration::from_millis(10);

/// More is no bound.
const MAX_LOCAL_HANDOVER: Duration = Duration::from_secs(3600);

/// Where locks come from. Cheap to clone; all clones share one queue.
///
/// ```
/// use std::time::Duration;
/// use lock_core::{LockError, LockProvider, memory::MemoryBackend};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// let locks = LockProvider::new(MemoryBackend::new());
///
/// match locks.lock("order:process:42")?.try_acquire(Duration::from_secs(5)).await? {
///     Some(guard) => {
///         // .. nobody else processes order 42 ..
///         guard.release().await?;
///     }
///     None => println!("somebody else is at it"),
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
    pub(crate) observer: Observer,
    pub(crate) nesting: Arc<Watch>,
    pub(crate) response_timeout: Duration,
    /// In nanoseconds.
    local_handover: AtomicU64,
    /// Set when the provider is shut down.
    closing: Latch,
    /// What is configured and does not hold the locks.
    beside: Vec<Box<dyn Beside>>,
}

impl LockProvider {
    /// A provider of the locks of this backend.
    pub fn new(backend: impl Backend) -> Self {
        Self::with_response_timeout(backend, RESPONSE_TIMEOUT)
    }

    /// A provider whose callers wait for one answer of the backend for at most `response_timeout`
    /// (as [`new`](Self::new) makes it, 2 s). An acquire is over by its wait plus this.
    pub fn with_response_timeout(backend: impl Backend, response_timeout: Duration) -> Self {
        Self::with_servers(backend, response_timeout, Vec::new())
    }

    fn with_servers(
        backend: impl Backend,
        response_timeout: Duration,
        beside: Vec<Box<dyn Beside>>,
    ) -> Self {
        let backend = erase(backend);
        let nesting = Watch::new(backend.kind());
        let shared = Shared {
            observer: Observer::new(backend.kind()),
            backend,
            queue: Queue::new(),
            nesting,
            response_timeout: response_timeout.min(MAX_RESPONSE_TIMEOUT),
            local_handover: AtomicU64::new(nanos(LOCAL_HANDOVER)),
            closing: Latch::new(),
            beside,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Turns the watch over the order of locks on or off, for this provider and all its clones.
    ///
    /// The watch reports, each once and at `warn`:
    ///
    /// - two locks that are taken in opposite orders, one while the other is held, wherever that is
    ///   in the program and whether or not two tasks have met in it: they are told by
    ///   `entity:operation`, and two of the same by their whole names, of which the log shows the
    ///   [labels](LockName::label);
    /// - a task that waits for a lock which it holds itself.
    ///
    /// It goes by what is protected ([`LockGuard::protect`](crate::LockGuard::protect), the macro,
    /// [`run`](DistributedLock::run)) by what, and by what a task takes by hand before it releases
    /// what it took before. A guard that is released in another task than it was taken in says
    /// nothing, nor do tries that do not wait, [`claim`](Self::claim), and the locks of one
    /// [`acquire_all`](Self::acquire_all) among themselves. Parts of one task that hold guards by hand
    /// side by side, in `join!` or `select!`, look nested: protect their work, or spawn them.
    ///
    /// # Default
    ///
    /// On in programs with debug assertions, off in others, where it costs a look at a flag. What it
    /// keeps is bounded.
    ///
    /// ```
    /// # use lock_core::{LockProvider, memory::MemoryBackend};
    /// let on = std::env::var_os("WATCH_LOCK_ORDER").is_some();
    /// let locks = LockProvider::new(MemoryBackend::new()).watch_lock_order(on);
    /// ```
    #[must_use]
    pub fn watch_lock_order(self, on: bool) -> Self {
        self.shared.nesting.turn(on);
        self
    }

    /// Sets how long a lock may be handed from task to task in this process, without the store, while others
    /// may wait for it elsewhere; for this provider and all its clones.
    ///
    /// A lock that is released while a task of this provider is next in line for it is handed over: the
    /// lease goes on, and the next guard has a `max_hold`, a loss and a greater fencing token of its own.
    /// That takes microseconds, where a release and an acquire take two round trips. The time counts from
    /// when the store granted the lock: the first release after it goes to the store, and another process
    /// that waits for the lock is granted it before this one is again. So it waits longer by up to
    /// `limit`, and by the rest of one hold; a lock that is held for longer than `limit` is never handed
    /// over. In this process tasks are served in the order of their calls, with it and without.
    ///
    /// Known as lock cohorting. The backends behind a socket and the one of files can; the one in memory has
    /// no use for it.
    ///
    /// # Default
    ///
    /// 10 ms. [`Duration::ZERO`] turns it off: each release goes to the store. An hour at most.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockProvider, memory::MemoryBackend};
    /// // Instances take turns with each release.
    /// let locks = LockProvider::new(MemoryBackend::new()).with_local_handover(Duration::ZERO);
    /// ```
    #[must_use]
    pub fn with_local_handover(self, limit: Duration) -> Self {
        let limit = nanos(limit.min(MAX_LOCAL_HANDOVER));
        self.shared.local_handover.store(limit, Ordering::Relaxed);
        self
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
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn health(&self) -> Health {
        let Shared {
            backend, beside, ..
        } = &*self.shared;
        let answer = if self.shared.is_closing() {
            // Whoever routes requests is to look elsewhere.
            Box::pin(ready(Err(LockError::closed())))
        } else {
            backend.health()
        };
        let locks = (backend.kind(), ServerRole::Locks, answer);
        let beside =
            (beside.iter()).map(|server| (server.name(), ServerRole::Reported, server.health()));
        let servers = std::iter::once(locks).chain(beside);
        Health::ask(servers, self.shared.response_timeout).await
    }

    /// What kind of backend grants the locks: `memory`, `file`, ..
    #[must_use]
    pub fn backend(&self) -> &'static str {
        self.shared.backend.kind()
    }
}

impl Shared {
    /// How long a lock may be handed over in this process.
    pub(crate) fn local_handover(&self) -> Duration {
        Duration::from_nanos(self.local_handover.load(Ordering::Relaxed))
    }

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

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for LockProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockProvider")
            .field("backend", &self.backend())
            .finish_non_exhaustive()
    }
}
