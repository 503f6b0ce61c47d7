//! What workers lock with: the library, or a backend without the library in front.

use std::fmt;
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use lock_core::backend::{Attempt, Backend, Grant, Lease, LockRequest};
use lock_core::{LockError, LockGuard, LockMode, LockName};
use tokio::time::{Instant, sleep, timeout_at};

use crate::address::Opened;

/// How often a bare lock is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// Locks that can be waited for.
pub trait Locks: Clone + Send + Sync + 'static {
    /// One that is held.
    type Held: Held;

    /// Whether what is granted is a slot of the lock that was asked for, which has a name of its own.
    const HAS_SLOTS: bool = false;

    /// Takes a lock in this mode; `None` when another held it for the whole wait.
    ///
    /// # Errors
    ///
    /// The store did not answer.
    fn acquire(
        &self,
        name: &LockName,
        mode: LockMode,
        wait: Duration,
    ) -> impl Future<Output = Result<Option<Self::Held>, LockError>> + Send;
}

/// A lock that is held.
pub trait Held: Send + Sync + 'static {
    /// The name of the slot, where it is one.
    fn slot(&self) -> Option<&LockName> {
        None
    }

    /// Whether it says that it is ours.
    fn is_valid(&self) -> bool;

    /// For how long it is ours; `None` without an end.
    fn remaining(&self) -> Option<Duration>;

    /// Completes when it is lost.
    fn lost(&self) -> impl Future<Output = ()> + Send;

    /// Its fencing token.
    ///
    /// # Errors
    ///
    /// The lock was lost, or the store did not answer.
    fn token(&self) -> impl Future<Output = Result<u64, LockError>> + Send;

    /// Gives it back.
    ///
    /// # Errors
    ///
    /// The lock was lost, or the store did not answer.
    fn release(self) -> impl Future<Output = Result<(), LockError>> + Send;
}

impl Locks for Opened {
    type Held = (LockGuard, Option<Lease>);

    async fn acquire(
        &self,
        name: &LockName,
        mode: LockMode,
        wait: Duration,
    ) -> Result<Option<Self::Held>, LockError> {
        let lock = self.locks.lock(name)?;
        let lock = match mode {
            LockMode::Shared => lock.shared(),
            _ => lock,
        };
        let guard = lock.try_acquire(wait).await?;
        Ok(guard.map(|guard| (guard, self.leases.of(name))))
    }
}

/// Locks with so many permits.
#[derive(Clone, Debug)]
pub struct Permits(pub Opened, pub usize);

impl Locks for Permits {
    type Held = (LockGuard, Option<Lease>);

    const HAS_SLOTS: bool = true;

    async fn acquire(
        &self,
        name: &LockName,
        _: LockMode,
        wait: Duration,
    ) -> Result<Option<Self::Held>, LockError> {
        let Self(opened, number) = self;
        let lock = opened.locks.lock(name)?.permits(*number);
        let guard = lock.try_acquire(wait).await?;
        Ok(guard.map(|guard| {
            let lease = opened.leases.of(guard.name());
            (guard, lease)
        }))
    }
}

impl Held for (LockGuard, Option<Lease>) {
    fn slot(&self) -> Option<&LockName> {
        Some(self.0.name())
    }

    fn is_valid(&self) -> bool {
        self.0.is_valid()
    }

    fn remaining(&self) -> Option<Duration> {
        self.1.as_ref().and_then(Lease::remaining)
    }

    async fn lost(&self) {
        self.0.lost().await;
    }

    async fn token(&self) -> Result<u64, LockError> {
        self.0.fencing_token().await.map(u64::from)
    }

    async fn release(self) -> Result<(), LockError> {
        self.0.release().await
    }
}

/// A backend alone. The library's queue and its guards latch and order what a broken backend does
/// wrong, so that some of it is seen only without them.
pub struct Bare<B>(Arc<B>);

impl<B> Bare<B> {
    /// The locks of this backend.
    pub fn new(backend: B) -> Self {
        Self(Arc::new(backend))
    }
}

// By hand: the backend need be neither.
impl<B> Clone for Bare<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> fmt::Debug for Bare<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bare").finish_non_exhaustive()
    }
}

impl<B: Backend> Locks for Bare<B> {
    type Held = Taken<B::Grant>;

    async fn acquire(
        &self,
        name: &LockName,
        mode: LockMode,
        wait: Duration,
    ) -> Result<Option<Self::Held>, LockError> {
        let deadline = Instant::now() + wait;
        let request = LockRequest::new(name.clone()).with_mode(mode);
        loop {
            // Registered before the try, so that no release is missed.
            let changed = self.0.changed(&request);
            let retry_in = match self.0.try_acquire(&request).await? {
                Attempt::Granted(grant) => return Ok(Some(Taken(grant))),
                Attempt::Held { retry_in } => retry_in,
            };
            let retry = async {
                match retry_in {
                    Some(after) => sleep(after).await,
                    None => pending().await,
                }
            };
            let either = async {
                tokio::select! { () = changed => {}, () = retry => {} }
            };
            if timeout_at(deadline, either).await.is_err() {
                return Ok(None);
            }
        }
    }
}

/// A lock of a backend alone.
#[derive(Debug)]
pub struct Taken<G>(G);

impl<G: Grant> Held for Taken<G> {
    fn is_valid(&self) -> bool {
        self.0.lease().is_valid()
    }

    fn remaining(&self) -> Option<Duration> {
        self.0.lease().remaining()
    }

    async fn lost(&self) {
        while self.is_valid() {
            sleep(LOOK).await;
        }
    }

    async fn token(&self) -> Result<u64, LockError> {
        self.0.fencing_token().await
    }

    async fn release(self) -> Result<(), LockError> {
        self.0.release().await
    }
}
