//! Work that runs in the instance that leads, as long as the provider does.

use std::fmt;
use std::future::Future;

use tokio_util::sync::CancellationToken;

use crate::guard::SharedGuard;
use crate::{FencingToken, LockError, LockName, LockProvider, Lost};

/// A term of leadership, as the work of [`LockProvider::lead`] sees it. It does not keep the lock held.
#[derive(Clone)]
pub struct LeaderTerm(SharedGuard);

impl LockProvider {
    /// Runs `work` in one instance at a time, until the provider is shut down: campaigns for the leadership
    /// of this name, runs `work` while this instance leads, and campaigns again after a loss.
    ///
    /// - `work` that returns `Ok(())` is begun again, while this instance leads in the same term. So let it
    ///   be one round, that ends with a pause: a round that never waits runs on a whole core.
    /// - `work` that returns an error ends `lead` with it, and this instance resigns.
    /// - When leadership is lost, `work` is dropped at its next await point, and begun again once this
    ///   instance leads again. What it has spawned goes on: see [`LeaderTerm::cancellation_token`].
    /// - After [`shutdown`](Self::shutdown) was called, no round is begun any more. One that is under way has
    ///   the grace of the shutdown to end, and is stopped after that. Then `lead` returns `Ok(())`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lock_core::{LeaderTerm, LockError, LockProvider, memory::MemoryBackend};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// let locks = LockProvider::new(MemoryBackend::new());
    /// # let closing = locks.clone();
    /// let rounds = locks.lead("job:process-outbox", async |term| {
    ///     let token = term.fencing_token().await?; // for the storage that is written to
    ///     // .. one round of what only the leader does ..
    ///     # let _ = token;
    ///     # tokio::spawn({ let closing = closing.clone(); async move { closing.shutdown(Duration::ZERO).await } });
    ///     tokio::time::sleep(Duration::from_millis(100)).await;
    ///     Ok(())
    /// });
    /// rounds.await // until `locks.shutdown(..)`
    /// # }
    /// ```
    ///
    /// The future is [`Send`] where the futures of `work` are. The closure is called once for each round: it
    /// lends what it has captured (`async |term| ..`), or clones it (`move |term| { let pool =
    /// pool.clone(); async move { .. } }`); an `async move` closure gives away what it owns and cannot be
    /// called again.
    ///
    /// For a status page, or work that is not one future, see [`leader`](Self::leader).
    ///
    /// # Errors
    ///
    /// The error of `work`. [`InvalidName`](crate::LockErrorKind::InvalidName), converted, when the text is
    /// not a lock name. A server that does not answer is no error: it is asked again, and the log says so.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `work` and resigns.
    ///
    /// # Panics
    ///
    /// When it is polled outside a tokio runtime with its timers enabled.
    pub async fn lead<N, W, F, E>(&self, name: N, mut work: W) -> Result<(), E>
    where
        N: TryInto<LockName, Error: Into<LockError>>,
        W: FnMut(LeaderTerm) -> F,
        F: Future<Output = Result<(), E>>,
        E: From<LockError>,
    {
        let leader = self.leader(name)?;
        // Only the end of the provider ends the wait for a term.
        while let Ok(term) = leader.term().await {
            let round = work(LeaderTerm(term.guard.view()));
            match term.guard.protect(round).await {
                Ok(done) => done?,
                // Told in the log by the campaign, which goes on.
                Err(_lost) => {}
            }
        }
        Ok(())
    }
}

impl LeaderTerm {
    /// The name that is led.
    #[must_use]
    pub fn name(&self) -> &LockName {
        self.0.name()
    }

    /// Whether this instance leads in this term, now; once false it stays false. Looks at the clock.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.0.is_valid()
    }

    /// Completes when leadership is lost, and never after this instance has resigned.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by dropping it.
    ///
    /// # Panics
    ///
    /// As [`LockGuard::lost`](crate::LockGuard::lost).
    pub fn lost(&self) -> Lost {
        self.0.lost()
    }

    /// A token that is cancelled when leadership is lost, for what the work spawns; see
    /// [`LockGuard::cancellation_token`](crate::LockGuard::cancellation_token).
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.0.cancellation_token()
    }

    /// The fencing token of this term: greater than that of any earlier leader, the same at every call.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::LockErrorKind::Lost) when this term is over,
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the backend did not answer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn fencing_token(&self) -> Result<FencingToken, LockError> {
        self.0.fencing_token().await
    }
}

impl fmt::Debug for LeaderTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderTerm")
            .field("lock", &self.name().label())
            .field("valid", &self.is_valid())
            .finish()
    }
}
