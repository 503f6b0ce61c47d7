//! A lock, before it is held.

use std::fmt;
use std::future::Future;

use crate::{Acquire, LockError, LockGuard, LockName, LockPolicy, LockProvider};

/// A lock by its name, not held yet. From [`LockProvider::lock`].
///
/// It is not re-entrant: a task that holds the lock and acquires it again waits like any other
/// caller.
#[derive(Clone)]
#[must_use = "a lock does nothing until it is acquired"]
pub struct DistributedLock {
    provider: LockProvider,
    name: LockName,
}

impl DistributedLock {
    pub(crate) fn new(provider: LockProvider, name: LockName) -> Self {
        Self { provider, name }
    }

    /// The name of the lock.
    #[must_use]
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// Acquires the lock, or says `None` when another held it for the whole wait. A bare
    /// [`Duration`](std::time::Duration) is how long to wait; zero tries once.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the backend did not answer: whether
    /// the lock is free is not known. [`Closed`](crate::LockErrorKind::Closed) after a shutdown.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe at every await point: the place in line is given up, and a lock that is granted
    /// after that goes to the next in line or back.
    ///
    /// # Panics
    ///
    /// Where it has to wait, for the holder or for the backend's answer, when it is polled outside a
    /// tokio runtime with its timers enabled. (A lock in memory that is free is acquired anywhere.)
    pub async fn try_acquire(
        &self,
        policy: impl Into<LockPolicy>,
    ) -> Result<Option<LockGuard>, LockError> {
        match self.acquire_owned(policy).await {
            Ok(guard) => Ok(Some(guard)),
            Err(error) if error.is_contended() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Acquires the lock; that another held it for the whole wait is an error.
    ///
    /// # Errors
    ///
    /// [`Contended`](crate::LockErrorKind::Contended) when another held the lock for the whole wait,
    /// else as [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    ///
    /// As [`try_acquire`](Self::try_acquire).
    ///
    /// # Panics
    ///
    /// As [`try_acquire`](Self::try_acquire).
    pub async fn acquire(&self, policy: impl Into<LockPolicy>) -> Result<LockGuard, LockError> {
        self.acquire_owned(policy).await
    }

    /// As [`acquire`](Self::acquire), as a future with a name, for hand-written futures: it borrows
    /// nothing, is `Unpin`, and allocates nothing when the lock is had at once.
    ///
    /// # Cancel safety
    ///
    /// As [`try_acquire`](Self::try_acquire).
    ///
    /// # Panics
    ///
    /// As [`try_acquire`](Self::try_acquire), when it is polled.
    pub fn acquire_owned(&self, policy: impl Into<LockPolicy>) -> Acquire {
        Acquire::new(self.provider.clone(), self.name.clone(), policy.into())
    }

    /// Acquires the lock, runs `work` as long as the lock is ours, and releases it. A release that
    /// fails after the work was done is logged and counted: the result of the work stays.
    ///
    /// `work` is a future, not a closure. Work that needs the guard, for its token, takes the steps by
    /// hand: [`acquire`](Self::acquire), [`LockGuard::protect`], [`LockGuard::release`].
    ///
    /// ```
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// let locks = LockProvider::new(MemoryBackend::new());
    /// let lock = locks.lock("report:rebuild:2026")?;
    /// let pages = lock.run(LockPolicy::long_operation(), async { 12 }).await?;
    /// # assert_eq!(pages, 12);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and then `work` was not run;
    /// [`Lost`](crate::LockErrorKind::Lost) when the lock was lost before `work` was done.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `work` and releases the lock.
    ///
    /// # Panics
    ///
    /// As [`try_acquire`](Self::try_acquire) and [`LockGuard::protect`].
    pub async fn run<F: Future>(
        &self,
        policy: impl Into<LockPolicy>,
        work: F,
    ) -> Result<F::Output, LockError> {
        let guard = self.acquire_owned(policy).await?;
        let output = guard.protect(work).await?;
        guard.settle().await;
        Ok(output)
    }
}

impl fmt::Debug for DistributedLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributedLock")
            .field("lock", &self.name.label())
            .finish_non_exhaustive()
    }
}
