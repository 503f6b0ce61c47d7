//! The options of a provider.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{LockProvider, Queue, Shared};
use crate::backend::DynBackend;
use crate::health::Beside;
use crate::lease::Latch;
use crate::nesting::Watch;
use crate::observe::Observer;

/// How long a caller waits for one answer of the backend, unless configured.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// More is no bound.
const MAX_RESPONSE_TIMEOUT: Duration = Duration::from_secs(3600);

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
    lock_order_watch: bool,
    beside: Vec<Box<dyn Beside>>,
}

impl LockProviderBuilder {
    pub(super) fn new(backend: Box<dyn DynBackend>) -> Self {
        Self {
            backend,
            response_timeout: RESPONSE_TIMEOUT,
            lock_order_watch: cfg!(debug_assertions),
            beside: Vec::new(),
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

    /// Whether to watch the order in which locks are acquired.
    ///
    /// The watch reports, each once and at `warn`:
    ///
    /// - two locks that are taken in opposite orders, one while the other is held, wherever that is
    ///   in the program and whether or not two tasks have met in it: they are told by
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
    #[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
    pub(super) fn beside(mut self, beside: Vec<Box<dyn Beside>>) -> Self {
        self.beside = beside;
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
            backend: self.backend,
            response_timeout: self.response_timeout,
            closing: Latch::new(),
            beside: self.beside,
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
            .field("lock_order_watch", &self.lock_order_watch)
            .finish_non_exhaustive()
    }
}
