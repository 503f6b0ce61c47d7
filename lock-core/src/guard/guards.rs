//! Several locks, held together.

use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::Pin;
use std::task::Poll;
use std::vec;

use super::{LockGuard, protect};
use crate::{LockError, LossReason};

/// How many are released together: each is to be answered within one response timeout.
const AT_ONCE: usize = 512;

/// The guards of several locks that were acquired together, in the order of their names. Dropping
/// it releases them all.
///
/// It is a slice of [`LockGuard`]s; as an iterator it gives them away one by one.
///
/// ```
/// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// let locks = LockProvider::new(MemoryBackend::new());
/// let names = ["account:transfer:7", "account:transfer:3", "account:transfer:7"];
/// let guards = locks.acquire_all(names, LockPolicy::user_request()).await?;
/// assert_eq!(guards.len(), 2);
/// assert_eq!(guards[0].name().as_str(), "account:transfer:3");
/// guards.release().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "if unused the locks are released immediately"]
pub struct LockGuards(Vec<LockGuard>);

impl LockGuards {
    pub(crate) fn new(guards: Vec<LockGuard>) -> Self {
        Self(guards)
    }

    /// Whether all locks are still ours.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.iter().all(LockGuard::is_valid)
    }

    /// Completes when one of the locks is lost.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by dropping it.
    ///
    /// # Panics
    ///
    /// As [`LockGuard::lost`].
    pub fn lost(&self) -> impl Future<Output = LossReason> + Send + 'static + use<> {
        let mut all: Vec<_> = self.iter().map(LockGuard::lost).collect();
        poll_fn(move |cx| {
            let lost = all.iter_mut().map(|lost| Pin::new(lost).poll(cx));
            lost.fold(
                Poll::Pending,
                |one, other| if one.is_ready() { one } else { other },
            )
        })
    }

    /// Runs `work` as long as all locks are ours; see [`LockGuard::protect`].
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::LockErrorKind::Lost) when one of them was lost before `work` was done.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `work`; the locks stay held.
    ///
    /// # Panics
    ///
    /// As [`LockGuard::protect`].
    pub async fn protect<F: Future>(&self, work: F) -> Result<F::Output, LockError> {
        protect::protect(self, work).await
    }

    /// Runs `work`, which returns a `Result`, as long as all locks are ours; see
    /// [`LockGuard::try_protect`].
    ///
    /// # Errors
    ///
    /// That of [`protect`](Self::protect), converted, and those of `work`.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `work`; the locks stay held.
    ///
    /// # Panics
    ///
    /// As [`LockGuard::protect`].
    pub async fn try_protect<F, T, E>(&self, work: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<LockError>,
    {
        self.protect(work).await?
    }

    /// Releases all locks, the last acquired first.
    ///
    /// # Errors
    ///
    /// The first error; the others are released all the same.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future releases the rest in the background.
    ///
    /// # Panics
    ///
    /// As [`LockGuard::release`].
    pub async fn release(self) -> Result<(), LockError> {
        let mut outcome = Ok(());
        let mut guards = self.0.into_iter().rev().peekable();
        while guards.peek().is_some() {
            let some = guards.by_ref().take(AT_ONCE);
            let mut releases: Vec<_> = some.map(|guard| Box::pin(guard.release())).collect();
            // All of these are begun, so that they travel together, and then waited for.
            poll_fn(|cx| {
                releases.retain_mut(|release| match release.as_mut().poll(cx) {
                    Poll::Ready(result) => {
                        if outcome.is_ok() {
                            outcome = result;
                        }
                        false
                    }
                    Poll::Pending => true,
                });
                Poll::Ready(())
            })
            .await;
            for release in releases {
                outcome = outcome.and(release.await);
            }
        }
        outcome
    }
}

impl Deref for LockGuards {
    type Target = [LockGuard];

    fn deref(&self) -> &[LockGuard] {
        &self.0
    }
}

impl IntoIterator for LockGuards {
    type Item = LockGuard;
    type IntoIter = vec::IntoIter<LockGuard>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
