//! Several locks, held together.

use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::Poll;
use std::vec;

use tokio_util::sync::CancellationToken;

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
pub struct LockGuards {
    guards: Vec<LockGuard>,
    cancellation: OnceLock<CancellationToken>,
}

impl LockGuards {
    pub(crate) fn new(guards: Vec<LockGuard>) -> Self {
        Self {
            guards,
            cancellation: OnceLock::new(),
        }
    }

    /// Whether all locks are still ours.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.iter().all(LockGuard::is_valid)
    }

    /// The same as [`is_valid`](Self::is_valid), for `?`.
    ///
    /// ```
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// let locks = LockProvider::new(MemoryBackend::new());
    /// let guards = locks.acquire_all(["account:transfer:7", "account:transfer:3"], LockPolicy::user_request()).await?;
    /// // .. a long computation ..
    /// guards.check()?; // before what cannot be undone
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::LockErrorKind::Lost), with the first [`lock`](LockError::lock) that is not ours any
    /// more, and the reason in its text.
    pub fn check(&self) -> Result<(), LockError> {
        self.iter().try_for_each(LockGuard::check)
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

    /// A token that is cancelled when one of the locks is lost: for spawned work, which
    /// [`protect`](Self::protect) does not stop. Each call gives a clone of the same token; what is said of
    /// [`LockGuard::cancellation_token`] holds here.
    ///
    /// ```
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let store = MemoryBackend::new();
    /// # let locks = LockProvider::new(store.clone());
    /// let accounts = ["account:transfer:7", "account:transfer:3"];
    /// let guards = locks.acquire_all(accounts, LockPolicy::user_request()).await?;
    /// let stop = guards.cancellation_token();
    /// let task = tokio::spawn(async move { stop.run_until_cancelled(move_money()).await });
    /// # store.revoke(guards[1].name());
    /// // .. an administrator takes one of the locks away ..
    /// assert_eq!(task.await.unwrap(), None); // the task has stopped
    /// # Ok(()) }
    /// # async fn move_money() { std::future::pending().await }
    /// ```
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        let token = self.cancellation.get_or_init(|| {
            let token = CancellationToken::new();
            self.iter()
                .for_each(|guard| guard.cancel_when_lost(token.clone()));
            token
        });
        self.iter().for_each(LockGuard::look_out);
        token.clone()
    }

    /// Runs `work` as long as all locks are ours; see [`LockGuard::protect`].
    ///
    /// ```
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// let locks = LockProvider::new(MemoryBackend::new());
    /// let guards = locks.acquire_all(["account:transfer:7", "account:transfer:3"], LockPolicy::user_request()).await?;
    /// let moved = guards.protect(async { 250 }).await?; // stopped, and an error, if one of them is lost
    /// guards.release().await?;
    /// # assert_eq!(moved, 250);
    /// # Ok(()) }
    /// ```
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
        let releases = self.guards.into_iter().rev().map(LockGuard::release);
        together(releases, |released| {
            if outcome.is_ok() {
                outcome = released;
            }
        })
        .await;
        outcome
    }

    /// As [`LockGuard::settle`], for all of them.
    #[doc(hidden)]
    pub async fn settle(self) {
        let settling = self.guards.into_iter().rev().map(LockGuard::settle);
        together(settling, |()| {}).await;
    }
}

impl Deref for LockGuards {
    type Target = [LockGuard];

    fn deref(&self) -> &[LockGuard] {
        &self.guards
    }
}

impl IntoIterator for LockGuards {
    type Item = LockGuard;
    type IntoIter = vec::IntoIter<LockGuard>;

    fn into_iter(self) -> Self::IntoIter {
        self.guards.into_iter()
    }
}

/// Begins so many at a time, so that they travel together, and waits for them.
async fn together<F: Future>(futures: impl Iterator<Item = F>, mut ended: impl FnMut(F::Output)) {
    let mut futures = futures.peekable();
    while futures.peek().is_some() {
        let mut some: Vec<_> = futures.by_ref().take(AT_ONCE).map(Box::pin).collect();
        poll_fn(|cx| {
            some.retain_mut(|future| match future.as_mut().poll(cx) {
                Poll::Ready(output) => {
                    ended(output);
                    false
                }
                Poll::Pending => true,
            });
            Poll::Ready(())
        })
        .await;
        for future in some {
            ended(future.await);
        }
    }
}
