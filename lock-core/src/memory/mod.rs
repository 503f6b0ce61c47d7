//! Locks of one process: for services with one instance, and as the double in tests.
//!
//! Each clone of a [`MemoryBackend`] is a client of its own to the same locks, as another process
//! would be: give a clone to a second [`LockProvider`](crate::LockProvider) to play another
//! instance. What production does to locks can be played too: [`revoke`](MemoryBackend::revoke)
//! takes one away, [`set_available`](MemoryBackend::set_available) stops the answers, and
//! [`with_lease`](MemoryBackend::with_lease) makes leases that end on a clock of yours.
//!
//! ```
//! use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
//! let store = MemoryBackend::new();
//! let here = LockProvider::new(store.clone());
//! let elsewhere = LockProvider::new(store.clone());
//!
//! let guard = here.lock("job:cleanup")?.acquire(LockPolicy::background_job()).await?;
//! let other = elsewhere.lock("job:cleanup")?;
//! assert!(other.try_acquire(LockPolicy::background_job()).await?.is_none());
//!
//! store.revoke(guard.name());
//! assert!(!guard.is_valid());
//! # Ok(()) }
//! ```

mod store;

use std::fmt;
use std::future::{Future, ready};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::store::{Client, Granting, Store};
use crate::backend::{Attempt, Backend, Clock, Grant, Lease, LockRequest};
use crate::instance::{Instance, LONGEST};
use crate::{Holder, Listing, LockError, LockMode, LockName, LossReason};

/// Locks of one process. See the [module](self).
pub struct MemoryBackend {
    shared: Arc<Shared>,
    /// Which clone this is.
    client: u32,
    /// What it is called, by its number in the store.
    instance: u16,
}

struct Shared {
    store: Store,
    clients: AtomicU32,
    tokens: AtomicU64,
    available: AtomicBool,
    leases: Option<(Duration, Arc<dyn Clock>)>,
    /// Leases of locks that were released: the next lock takes one instead of an allocation.
    spare: Mutex<Vec<Lease>>,
}

/// More are not kept.
const MAX_SPARE: usize = 64;

impl MemoryBackend {
    /// No locks, and leases without an end.
    #[must_use]
    pub fn new() -> Self {
        Self::from_leases(None)
    }

    /// No locks, and leases that end on `clock` after `lease`, without renewals: as for a holder
    /// that was cut off. A [`TokioClock`](crate::backend::TokioClock) follows
    /// `tokio::time::advance`.
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use lock_core::backend::TokioClock;
    /// use lock_core::{LockError, LockProvider, LossReason, memory::MemoryBackend};
    ///
    /// // #[tokio::test(start_paused = true)]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), LockError> {
    /// let lease = Duration::from_secs(30);
    /// let store = MemoryBackend::with_lease(lease, Arc::new(TokioClock::new()));
    /// let guard = LockProvider::new(store).acquire("job:cleanup", Duration::ZERO).await?;
    ///
    /// tokio::time::advance(lease).await; // as if the process had been frozen
    /// assert_eq!(guard.lost().await, LossReason::Expired);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_lease(lease: Duration, clock: Arc<dyn Clock>) -> Self {
        Self::from_leases(Some((lease, clock)))
    }

    /// The same client under this name, as [`LOCK_INSTANCE`](crate::LockSettings::instance) gives one to the
    /// clients of a server. Clones of it have the name as well, until they are given another.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// let store = MemoryBackend::new();
    /// let one = LockProvider::new(store.clone().with_instance("web-1")?);
    /// let other = LockProvider::new(store.with_instance("web-2")?);
    ///
    /// let guard = one.acquire("job:cleanup", Duration::ZERO).await?;
    /// let holder = other.holder("job:cleanup").await?.expect("it is held");
    /// assert_eq!(holder.instance(), Some("web-1"));
    /// # drop(guard);
    /// # Ok(()) }
    /// ```
    ///
    /// # Default
    ///
    /// `host:pid`.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) for what no instance can be called.
    pub fn with_instance(mut self, instance: &str) -> Result<Self, LockError> {
        let instance = Instance::of(instance)?;
        let number = self.shared.store.instance(instance.as_str());
        self.instance = number.ok_or_else(|| {
            LockError::misconfigured("a store in memory knows 65,536 instances at most")
        })?;
        Ok(self)
    }

    fn from_leases(leases: Option<(Duration, Arc<dyn Clock>)>) -> Self {
        let store = Store::default();
        // The first of all.
        let instance = store.instance(Instance::of_process(LONGEST).as_str());
        Self {
            shared: Arc::new(Shared {
                store,
                clients: AtomicU32::new(1),
                tokens: AtomicU64::new(0),
                available: AtomicBool::new(true),
                leases,
                spare: Mutex::default(),
            }),
            client: 0,
            instance: instance.unwrap_or_default(),
        }
    }

    /// Takes the lock away from its holder, or from all of its readers, as an administrator would; whether it was
    /// held.
    pub fn revoke(&self, name: &LockName) -> bool {
        self.shared.store.revoke(name, LossReason::Revoked)
    }

    /// Whether the store answers; while it does not, every question is
    /// [`Unavailable`](crate::LockErrorKind::Unavailable). Locks that are held stay held.
    pub fn set_available(&self, available: bool) {
        self.shared.available.store(available, Ordering::Release);
    }

    /// How many locks are held; one that several read counts once.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.store.held()
    }

    fn client(&self, mode: LockMode) -> Client {
        let number = self.client;
        Client { number, mode }
    }

    fn check_available(&self) -> Result<(), LockError> {
        if self.shared.available.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(LockError::unavailable(
            "the memory backend was set to be unavailable",
        ))
    }
}

impl Shared {
    fn lease(&self) -> Lease {
        match &self.leases {
            None => self.unbounded_lease(),
            Some((lease, clock)) => {
                let deadline = clock.now().saturating_add(*lease);
                Lease::until(Arc::clone(clock), deadline, *lease / 3)
            }
        }
    }
}

impl Shared {
    fn spare(&self) -> MutexGuard<'_, Vec<Lease>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unbounded_lease(&self) -> Lease {
        let spare = self.spare().pop_if(|lease| lease.is_unused());
        spare.unwrap_or_else(Lease::unbounded)
    }

    fn keep(&self, lease: &Lease) {
        let mut spare = self.spare();
        if self.leases.is_none() && lease.is_valid() && spare.len() < MAX_SPARE {
            spare.push(lease.clone());
        }
    }
}

/// Another client of the same locks.
impl Clone for MemoryBackend {
    fn clone(&self) -> Self {
        let client = self.shared.clients.fetch_add(1, Ordering::Relaxed);
        Self {
            shared: Arc::clone(&self.shared),
            client,
            instance: self.instance,
        }
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

impl Backend for MemoryBackend {
    type Grant = MemoryGrant;
    const KIND: &'static str = "memory";
    const IMMEDIATE: bool = true;
    const SHARED: bool = true;

    async fn try_acquire(&self, request: &LockRequest) -> Result<Attempt<MemoryGrant>, LockError> {
        self.check_available()?;
        let lease = self.shared.lease();
        let (client, store) = (self.client(request.mode()), &self.shared.store);
        Ok(
            match store.try_take(client, self.instance, request.name(), &lease) {
                Granting::Granted(id) => Attempt::Granted(MemoryGrant {
                    backend: Arc::clone(&self.shared),
                    name: request.name().clone(),
                    id,
                    lease,
                }),
                Granting::Held { retry_in } => Attempt::Held { retry_in },
            },
        )
    }

    fn changed(&self, request: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        let name = request.name();
        let shared = Arc::clone(&self.shared);
        let client = self.client(request.mode());
        let (registration, changed) = shared.store.register(client, name);
        let leaving = store::Leaving {
            shared,
            name: name.clone(),
            registration,
        };
        async move {
            // An error is a sender that was dropped, which is a change as well.
            let _ = changed.await;
            drop(leaving);
        }
    }

    async fn holder(&self, name: &LockName) -> Result<Option<Holder>, LockError> {
        self.check_available()?;
        Ok(self.shared.store.holder(name))
    }

    async fn list(&self, limit: usize) -> Result<Listing, LockError> {
        self.check_available()?;
        Ok(Listing::new(self.shared.store.list(limit), limit))
    }

    fn instance(&self) -> Option<String> {
        self.shared.store.instance_of(self.instance)
    }

    async fn health(&self) -> Result<(), LockError> {
        self.check_available()
    }
}

/// A lock that is held in memory.
#[doc(hidden)]
pub struct MemoryGrant {
    backend: Arc<Shared>,
    name: LockName,
    id: u64,
    lease: Lease,
}

impl Grant for MemoryGrant {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    async fn release(self) -> Result<(), LockError> {
        Ok(())
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        ready(Ok(self.backend.tokens.fetch_add(1, Ordering::Relaxed) + 1))
    }
}

impl Drop for MemoryGrant {
    fn drop(&mut self) {
        self.backend.store.release(&self.name, self.id);
        self.backend.keep(&self.lease);
    }
}

impl fmt::Debug for MemoryGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryGrant")
            .field("lock", &self.name.label())
            .finish_non_exhaustive()
    }
}
