//! The options of a provider.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{LockProvider, Queue, Seekers, Shared};
use crate::backend::DynBackend;
use crate::health::Companion;
use crate::lease::Latch;
use crate::nesting::Watch;
use crate::observe::Observer;

/// How long a caller waits for one answer of the backend, unless configured.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// More is no bound.
const MAX_RESPONSE_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long a lock is handed over in this process before it is released to the store, unless configured.
const LOCAL_HANDOVER: Duration = Duration::from_millis(10);

/// More is no bound.
const MAX_LOCAL_HANDOVER: Duration = Duration::from_secs(3600);

/// Makes a [`LockProvider`] with options; from [`LockProvider::builder`], or by
/// [`connect`](Self::connect) from configuration.
///
/// ```
/// use std::time::Duration;
/// use lock_core::{LockProvider, memory::MemoryBackend};
///
/// let locks = LockProvider::builder(MemoryBackend::new())
///     .response_timeout(Duration::from_millis(500))
///     .lock_order_watch(true)
///     .build();
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct LockProviderBuilder {
    backend: Box<dyn DynBackend>,
    response_timeout: Duration,
    local_handover: Duration,
    lock_order_watch: bool,
    companions: Vec<Box<dyn Companion>>,
}

impl LockProviderBuilder {
    pub(super) fn new(backend: Box<dyn DynBackend>) -> Self {
        Self {
            backend,
            response_timeout: RESPONSE_TIMEOUT,
            local_handover: LOCAL_HANDOVER,
            lock_order_watch: cfg!(debug_assertions),
            companions: Vec::new(),
        }
    }

    /// How long a caller waits for one answer of the backend; an acquire is over by its wait plus this.
    /// More than an hour counts as an hour.
    ///
    /// # Default
    ///
    /// 2 s.
    pub fn response_timeout(mut self, response_timeout: Duration) -> Self {
        self.response_timeout = response_timeout.min(MAX_RESPONSE_TIMEOUT);
        self
    }

    /// How long a lock may be handed from task to task in this process, without the store, while other
    /// processes may wait for it.
    ///
    /// A lock that is released while a task of this provider is next in line for it is handed over: the
    /// lease goes on, and the next guard has a `max_hold`, a loss and a greater fencing token of its own.
    /// That takes microseconds, where a release and an acquire take two round trips. The time counts from
    /// when the store granted the lock: the first release after it goes to the store, and another process
    /// that waits for the lock is granted it before this one is again. So it waits longer by up to
    /// `limit`, and by the rest of one hold; a lock that is held for longer than `limit` is never handed
    /// over. In this process tasks are served in the order of their calls, with it and without.
    ///
    /// What was handed over is given back after `limit` if the next task is not polled, by a task of the
    /// runtime of the release. A runtime whose threads all block after a release keeps the lock until it runs
    /// again: turn this off in such a program.
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
    /// let locks = LockProvider::builder(MemoryBackend::new())
    ///     .local_handover(Duration::ZERO)
    ///     .build();
    /// ```
    pub fn local_handover(mut self, limit: Duration) -> Self {
        self.local_handover = limit.min(MAX_LOCAL_HANDOVER);
        self
    }

    /// Whether to watch the order in which locks are acquired.
    ///
    /// The watch reports, each once and at `warn`:
    ///
    /// - two locks that are taken in opposite orders, one while the other is held, wherever that is
    ///   in the program and whether or not two tasks have met in it: they are reported by
    ///   `entity:operation`, and two of the same by their whole names, of which the log shows the
    ///   [labels](crate::LockName::label);
    /// - a task that waits for a lock which it holds itself.
    ///
    /// It goes by what is protected ([`LockGuard::protect`](crate::LockGuard::protect), the macro,
    /// [`run`](crate::DistributedLock::run)) by what, and by what a task takes by hand before it releases
    /// what it took before. A guard that is released in another task than it was taken in says
    /// nothing, nor do tries that do not wait, [`claim`](LockProvider::claim), and the locks of one
    /// [`acquire_all`](LockProvider::acquire_all) among themselves. Parts of one task that hold guards by
    /// hand side by side, in `join!` or `select!`, look nested: protect their work, or spawn them.
    ///
    /// ```
    /// # use lock_core::{LockProvider, memory::MemoryBackend};
    /// let on = std::env::var_os("WATCH_LOCK_ORDER").is_some();
    /// let locks = LockProvider::builder(MemoryBackend::new()).lock_order_watch(on).build();
    /// ```
    ///
    /// # Default
    ///
    /// On in programs with debug assertions, off in others, where it costs a look at a flag. What it
    /// keeps is bounded.
    pub fn lock_order_watch(mut self, on: bool) -> Self {
        self.lock_order_watch = on;
        self
    }

    /// The servers that are configured and do not hold the locks.
    pub(super) fn companions(mut self, companions: Vec<Box<dyn Companion>>) -> Self {
        self.companions = companions;
        self
    }

    /// The provider.
    #[must_use]
    pub fn build(self) -> LockProvider {
        let kind = self.backend.kind();
        let shared = Shared {
            observer: Observer::new(kind),
            nesting: Watch::new(kind, self.lock_order_watch),
            queue: Queue::new(),
            seekers: Seekers::new(),
            backend: self.backend,
            response_timeout: self.response_timeout,
            local_handover: self.local_handover,
            closing: Latch::new(),
            companions: self.companions,
        };
        LockProvider {
            shared: Arc::new(shared),
        }
    }
}

impl fmt::Debug for LockProviderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockProviderBuilder")
            .field("backend", &self.backend.kind())
            .field("response_timeout", &self.response_timeout)
            .field("local_handover", &self.local_handover)
            .field("lock_order_watch", &self.lock_order_watch)
            .finish_non_exhaustive()
    }
}
