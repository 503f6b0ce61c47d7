//! One lock by its name, in one step.

use std::future::Future;

use tokio::task::coop::consume_budget;

use super::LockProvider;
use crate::{DistributedLock, LockError, LockGuard, LockName, LockPolicy};

impl LockProvider {
    /// Acquires the lock of this name; that another held it for the whole wait is an error. The same as
    /// [`lock`](Self::lock) and [`DistributedLock::acquire`], with one `?` for both.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockName, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let name = LockName::new("order", "process", 42)?;
    /// let guard = locks.acquire(name, Duration::from_secs(5)).await?;
    /// guard.protect(async { /* .. */ }).await?;
    /// guard.release().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidName`](crate::LockErrorKind::InvalidName) when the text is not a lock name,
    /// [`Contended`](crate::LockErrorKind::Contended) when another held the lock for the whole wait,
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the backend did not answer,
    /// [`Closed`](crate::LockErrorKind::Closed) after a shutdown.
    ///
    /// # Cancel safety
    ///
    /// As [`DistributedLock::try_acquire`].
    ///
    /// # Panics
    ///
    /// As [`DistributedLock::try_acquire`].
    pub async fn acquire<N>(
        &self,
        name: N,
        policy: impl Into<LockPolicy>,
    ) -> Result<LockGuard, LockError>
    where
        N: TryInto<LockName, Error: Into<LockError>>,
    {
        self.named(name).await?.acquire_owned(policy).await
    }

    /// Acquires the lock of this name, or returns `None` when another held it for the whole wait.
    ///
    /// **Unlike the `try_` functions of `std` and `tokio::sync`, it waits for as long as `policy` says.**
    /// `try_` means that contention is a value here, and not an error. With
    /// [`Duration::ZERO`](std::time::Duration::ZERO) or
    /// [`LockPolicy::background_job`] it tries once and does not wait.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let Some(guard) = locks.try_acquire("job:cleanup-tokens", Duration::ZERO).await? else {
    ///     return Ok(()); // another instance cleans up
    /// };
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), but for contention.
    ///
    /// # Cancel safety
    ///
    /// As [`DistributedLock::try_acquire`].
    ///
    /// # Panics
    ///
    /// As [`DistributedLock::try_acquire`].
    pub async fn try_acquire<N>(
        &self,
        name: N,
        policy: impl Into<LockPolicy>,
    ) -> Result<Option<LockGuard>, LockError>
    where
        N: TryInto<LockName, Error: Into<LockError>>,
    {
        self.named(name).await?.try_acquire(policy).await
    }

    /// Acquires the lock of this name, runs `work` as long as the lock is ours, and releases it; see
    /// [`DistributedLock::run`]. For work that returns a `Result` there is [`try_run`](Self::try_run).
    ///
    /// ```
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let rebuild = async { 12 };
    /// let pages = locks.run("report:rebuild:2026", LockPolicy::long_operation(), rebuild).await?;
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
    /// As [`DistributedLock::run`].
    pub async fn run<N, F>(
        &self,
        name: N,
        policy: impl Into<LockPolicy>,
        work: F,
    ) -> Result<F::Output, LockError>
    where
        N: TryInto<LockName, Error: Into<LockError>>,
        F: Future,
    {
        self.named(name).await?.run(policy, work).await
    }

    /// As [`run`](Self::run), for work that returns a `Result`: one `?` for the errors of the lock and of
    /// the work; see [`DistributedLock::try_run`].
    ///
    /// ```
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// type Error = Box<dyn std::error::Error>; // any error that is `From<LockError>`
    ///
    /// async fn migrate() -> Result<u32, Error> {
    ///     Ok("7".parse()?)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let version = locks.try_run("job:migrate", LockPolicy::long_operation(), migrate()).await?;
    /// # assert_eq!(version, 7);
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
    /// As [`DistributedLock::run`].
    pub async fn try_run<N, F, T, E>(
        &self,
        name: N,
        policy: impl Into<LockPolicy>,
        work: F,
    ) -> Result<T, E>
    where
        N: TryInto<LockName, Error: Into<LockError>>,
        F: Future<Output = Result<T, E>>,
        E: From<LockError>,
    {
        self.named(name).await?.try_run(policy, work).await
    }

    /// The lock of this name. A loop of calls with a wrong name lets other tasks run, as one with a right
    /// name does.
    async fn named<N>(&self, name: N) -> Result<DistributedLock, LockError>
    where
        N: TryInto<LockName, Error: Into<LockError>>,
    {
        let lock = self.lock(name);
        if lock.is_err() {
            consume_budget().await;
        }
        lock
    }
}
