//! A lock, before it is held.

use std::fmt;
use std::future::Future;

use crate::{Acquire, LockError, LockGuard, LockName, LockPolicy, LockProvider};

/// A lock by its name, not held yet. From [`LockProvider::lock`].
///
/// It is not re-entrant: a task that holds the lock and acquires it again waits like any other
/// caller.
///
/// For one acquire [`LockProvider::acquire`] is shorter; this is for a lock that is kept.
///
/// ```
/// use std::time::Duration;
/// use lock_core::{DistributedLock, LockError, LockProvider, memory::MemoryBackend};
///
/// struct Reports {
///     rebuild: DistributedLock,
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// let locks = LockProvider::new(MemoryBackend::new());
/// let reports = Reports { rebuild: locks.lock("report:rebuild:all")? };
/// for _day in 0..3 {
///     let guard = reports.rebuild.acquire(Duration::from_secs(5)).await?;
///     guard.protect(async { /* rebuild */ }).await?;
///     guard.release().await?;
/// }
/// # Ok(()) }
/// ```
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

    /// Acquires the lock, or returns `None` when another held it for the whole wait.
    ///
    /// **Unlike the `try_` functions of `std` and `tokio::sync`, it waits for as long as `policy` says.**
    /// `try_` means that contention is a value here, and not an error. A bare
    /// [`Duration`](std::time::Duration) is how long to wait; with zero it tries once and does not wait.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let lock = locks.lock("job:cleanup-tokens")?;
    /// let guard = lock.try_acquire(Duration::from_secs(5)).await?;
    /// assert!(guard.is_some());
    /// assert!(lock.try_acquire(Duration::ZERO).await?.is_none()); // immediately
    /// # Ok(()) }
    /// ```
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
    /// nothing, is `Unpin`, and allocates nothing when the lock is granted immediately.
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

    /// As [`run`](Self::run), for work that returns a `Result`: what goes wrong with the lock becomes an
    /// error of the work's type, so that there is one `Result` and one `?`. The lock is released as well
    /// when the work fails.
    ///
    /// ```
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// #[derive(Debug)]
    /// enum ReportError {
    ///     Lock(LockError),
    ///     Empty,
    /// }
    ///
    /// impl From<LockError> for ReportError {
    ///     fn from(error: LockError) -> Self {
    ///         Self::Lock(error)
    ///     }
    /// }
    ///
    /// async fn rebuild() -> Result<u32, ReportError> {
    ///     Err(ReportError::Empty)
    /// }
    ///
    /// let lock = locks.lock("report:rebuild:2026")?;
    /// let rebuilt = lock.try_run(LockPolicy::long_operation(), rebuild()).await;
    /// assert!(matches!(rebuilt, Err(ReportError::Empty)));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run), converted, and those of `work`.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `work` and releases the lock.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    pub async fn try_run<F, T, E>(&self, policy: impl Into<LockPolicy>, work: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<LockError>,
    {
        self.run(policy, work).await?
    }
}

impl fmt::Debug for DistributedLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributedLock")
            .field("lock", &self.name.label())
            .finish_non_exhaustive()
    }
}
