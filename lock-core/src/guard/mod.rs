//! Guards: the proof that a lock is ours, for as long as it is.

mod cohort;
mod guards;
mod hold;
mod kept;
mod leaving;
mod losses;
mod lost;
mod many;
mod overtime;
mod protect;
mod releasing;
mod seat;
mod settle;
mod shared;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use cohort::hand_on;
pub use guards::LockGuards;
pub(crate) use hold::{Hold, seat};
pub(crate) use losses::lately_lost;
pub use lost::Lost;
pub(crate) use releasing::STOPPING;
pub use settle::Settle;
pub use shared::SharedGuard;

use crate::backend::Granted;
use crate::nesting::Mark;
use crate::{FencingToken, LockError, LockName, LockPolicy};

/// A lock that is held. Dropping it releases the lock in the background; it needs no runtime for
/// that and never blocks.
///
/// Give it a name for as long as the lock is needed, `_guard` if nothing else: `let _ = ..` drops what
/// is on its right side there and then, and so releases the lock before the work begins. The lint
/// `let_underscore_drop` of rustc, which is off by default, finds such lines.
///
/// A guard can stop being valid while it is held: its process was frozen past the lease, the
/// connection broke, an administrator intervened. It says so: [`is_valid`](Self::is_valid) turns
/// false for good, [`lost`](Self::lost) completes, and work under [`protect`](Self::protect) is
/// stopped. Storage that checks [`fencing_token`](Self::fencing_token) refuses what comes too late
/// even so.
///
/// ```
/// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// let locks = LockProvider::new(MemoryBackend::new());
/// let guard = locks.lock("order:process:42")?.acquire(Duration::from_secs(5)).await?;
/// let token = guard.fencing_token().await?;
/// let total = guard.protect(async { 6 * 7 }).await?;
/// guard.release().await?;
/// # assert_eq!((total, token.get()), (42, 1));
/// # Ok(()) }
/// ```
#[must_use = "if unused the lock is released immediately"]
pub struct LockGuard {
    held: Granted,
}

impl LockGuard {
    pub(crate) fn new(held: Granted) -> Self {
        Self { held }
    }

    /// Bounds the hold as the policy says, from now on.
    pub(crate) fn follow(&self, policy: &LockPolicy) {
        self.held.follow(policy);
    }

    /// Releases the lock of a guard that no caller has seen: it is not kept.
    pub(crate) fn give_back(&self) {
        self.held.give_back();
    }

    /// Its grant serves no other holder in this process.
    #[cfg(feature = "postgres")]
    pub(crate) fn tie(&self) {
        self.held.hold.tie();
    }

    /// Since when the lock is held.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.held.hold.since()
    }

    /// Where the order of locks is watched.
    pub(crate) fn mark(&self) -> Option<&Mark> {
        self.held.hold.mark()
    }

    /// Cancels a token of several guards with the loss of this one.
    fn cancel_when_lost(&self, token: CancellationToken) {
        self.held.hold.cancel_when_lost(token);
    }

    /// Sees to it that a loss is noticed by itself.
    fn look_out(&self) {
        self.held.look_out();
    }

    /// The name of the lock.
    #[must_use]
    pub fn name(&self) -> &LockName {
        &self.held.hold.name
    }

    /// Whether the lock is still ours; once false it stays false. Looks at the clock, so that it
    /// is right also for a process that was frozen until now.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.held.is_valid()
    }

    /// The same as [`is_valid`](Self::is_valid), for `?`.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::LockErrorKind::Lost), with the reason in its text.
    pub fn check(&self) -> Result<(), LockError> {
        self.held.check()
    }

    /// How long the lock has been held.
    #[must_use]
    pub fn held_for(&self) -> Duration {
        self.held.hold.held_for()
    }

    /// Completes when the lock is lost, and never after it was released. Each call gives a future
    /// of its own, which does not borrow the guard; one made after the loss is ready immediately.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, LossReason, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let store = MemoryBackend::new();
    /// # let locks = LockProvider::new(store.clone());
    /// let guard = locks.acquire("report:rebuild:2026", Duration::from_secs(5)).await?;
    /// # store.revoke(guard.name());
    /// tokio::select! {
    ///     reason = guard.lost() => assert_eq!(reason, LossReason::Revoked),
    ///     () = std::future::pending() => {} // the work
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by dropping it.
    ///
    /// # Panics
    ///
    /// When it is polled outside a tokio runtime with its timers enabled and the lease has a
    /// deadline.
    pub fn lost(&self) -> Lost {
        Lost::new(Granted::clone(&self.held))
    }

    /// A token that is cancelled when the lock is lost: for spawned work, which [`protect`](Self::protect)
    /// does not stop. Each call gives a clone of the same token.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let store = MemoryBackend::new();
    /// # let locks = LockProvider::new(store.clone());
    /// let guard = locks.acquire("report:rebuild:2026", Duration::from_secs(5)).await?;
    /// let stop = guard.cancellation_token();
    /// let pages = tokio::spawn(async move { stop.run_until_cancelled(write_pages()).await });
    /// # store.revoke(guard.name());
    /// // .. an administrator takes the lock away ..
    /// assert_eq!(pages.await.unwrap(), None); // the task has stopped
    /// # Ok(()) }
    /// # async fn write_pages() { std::future::pending().await }
    /// ```
    ///
    /// A release does not cancel it. Where the work is to stop with the guard as well, keep
    /// `token.drop_guard()` beside the guard.
    ///
    /// A task of the runtime in which this is called watches the lock, and unlocks it in the backend soon
    /// after a loss, although the guard lives. Called outside of a runtime, the token is cancelled when a
    /// call such as [`is_valid`](Self::is_valid) finds the loss.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.held.cancellation_token()
    }

    /// The fencing token of this hold: greater than that of any earlier holder of the same lock,
    /// the same at every call.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::LockErrorKind::Lost) when the lock is not ours any more,
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the backend did not answer. What was
    /// done under the lock before is done: [`LockError::is_outcome_unknown`].
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) for a [reader](crate::DistributedLock::shared):
    /// tokens order writers.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a token that was issued and not received is never issued again.
    ///
    /// # Panics
    ///
    /// At the first call for a hold, when it is polled outside a tokio runtime with its timers enabled.
    pub async fn fencing_token(&self) -> Result<FencingToken, LockError> {
        self.held.fencing_token().await
    }

    /// Runs `work` as long as the lock is ours. When the lock is lost, `work` is dropped at its next
    /// await point; what it has spawned, sent or blocks on goes on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockErrorKind, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let store = MemoryBackend::new();
    /// # let locks = LockProvider::new(store.clone());
    /// let guard = locks.acquire("report:rebuild:2026", Duration::from_secs(5)).await?;
    /// assert_eq!(guard.protect(async { 6 * 7 }).await?, 42);
    ///
    /// # store.revoke(guard.name());
    /// // .. an administrator takes the lock away ..
    /// let error = guard.protect(std::future::pending::<()>()).await.unwrap_err();
    /// assert_eq!(error.kind(), LockErrorKind::Lost);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::LockErrorKind::Lost) when the lock was lost before `work` was done: how far
    /// it came is unknown.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `work`; the lock stays held.
    ///
    /// # Panics
    ///
    /// As [`lost`](Self::lost), once `work` has to wait.
    pub async fn protect<F: Future>(&self, work: F) -> Result<F::Output, LockError> {
        protect::protect(std::slice::from_ref(self), work).await
    }

    /// As [`protect`](Self::protect), for work that returns a `Result`: a loss becomes an error of the
    /// work's type, so that there is one `Result` and one `?`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// type Error = Box<dyn std::error::Error>; // any error that is `From<LockError>`
    ///
    /// async fn count() -> Result<u32, Error> {
    ///     Ok("12".parse()?)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let guard = locks.acquire("report:rebuild:2026", Duration::from_secs(5)).await?;
    /// let pages = guard.try_protect(count()).await?;
    /// guard.release().await?;
    /// # assert_eq!(pages, 12);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// That of [`protect`](Self::protect), converted, and those of `work`.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `work`; the lock stays held.
    ///
    /// # Panics
    ///
    /// As [`protect`](Self::protect).
    pub async fn try_protect<F, T, E>(&self, work: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<LockError>,
    {
        self.protect(work).await?
    }

    /// Releases the lock and waits for the backend's answer.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::LockErrorKind::Lost) when the lock was not ours up to the release,
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the backend did not answer in time;
    /// the release goes on in the background then.
    ///
    /// The work that was done under the lock is done all the same, and the error
    /// [says so](LockError::is_outcome_unknown). Where a caller would take it for a refusal, drop the
    /// guard instead, or use [`DistributedLock::run`](crate::DistributedLock::run).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the release, once it was polled or not.
    ///
    /// # Panics
    ///
    /// Where the answer has to be waited for (any backend but the one in memory), when it is polled
    /// outside a tokio runtime with its timers enabled.
    pub async fn release(self) -> Result<(), LockError> {
        match self.held.start_release() {
            Ok(releasing) => releasing.answer().await,
            Err(over) => over,
        }
    }

    /// Releases after work that was done under protection: its result stands whatever the release
    /// says, so that an error is logged and counted.
    #[doc(hidden)]
    pub fn settle(self) -> Settle {
        Settle::new(self.held.start_release())
    }

    /// A view of this guard, that never gives it away.
    pub(crate) fn view(&self) -> SharedGuard {
        SharedGuard::view(&self.held)
    }

    /// Turns this guard into one that many can look at and the first can take.
    #[doc(hidden)]
    #[must_use = "it is the guard now"]
    pub fn share(self) -> SharedGuard {
        SharedGuard::new(&self.held)
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if !self.held.hold.is_shared() {
            self.held.finish();
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("lock", &self.name().label())
            .field("valid", &self.is_valid())
            .finish_non_exhaustive()
    }
}
