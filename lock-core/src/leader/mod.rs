//! Leadership: of all instances that want it, one leads.

mod campaign;
mod candidate;
mod lead;
mod report;

use std::fmt;
use std::future::{Future, pending};
use std::sync::Arc;

use tokio::task::coop::consume_budget;

use self::campaign::keep_campaigning;
use self::candidate::{Candidate, Term};
pub use self::lead::LeaderTerm;
use crate::provider::Closing;
use crate::{FencingToken, Holder, LockError, LockName, LockProvider, Lost};

/// A candidate for leadership: the one that holds the lock of this name leads. From
/// [`LockProvider::leader`].
///
/// It campaigns in the background for as long as it lives: it waits for the lock, leads while the
/// lock is its own, and campaigns again after a loss. A server that does not answer is asked again,
/// and the log reports it. Clones are the same candidate; dropping the last one resigns.
///
/// For work that runs in rounds while this instance leads, [`LockProvider::lead`] is all that is needed.
///
/// ```
/// # use std::time::Duration;
/// use lock_core::{LockError, LockProvider, memory::MemoryBackend};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// let locks = LockProvider::new(MemoryBackend::new());
/// let leader = locks.leader("job:process-outbox")?;
///
/// let worker = leader.clone();
/// tokio::spawn(async move {
///     loop {
///         let work = async {
///             loop {
///                 // .. one round of what only the leader does ..
///                 tokio::time::sleep(Duration::from_secs(1)).await;
///             }
///         };
///         match worker.while_leading(work).await {
///             Ok(()) => {}                            // done: begins again, and still leads
///             Err(error) if error.is_lost() => {}     // stopped: waits until it leads again
///             Err(_) => break,                        // the provider was shut down
///         }
///     }
/// });
/// # let mut leader = leader;
/// # assert!(leader.changed().await?);
/// assert!(leader.is_leader()); // for a status page, or before each small step
/// # locks.shutdown(Duration::ZERO).await;
/// # Ok(()) }
/// ```
///
/// Let work that has nothing to do wait, as the `sleep` above does. While this instance leads,
/// `while_leading` begins immediately: a loop of it around work that is ready runs without a pause, a
/// whole core for nothing, and asks whatever the work asks as often.
///
/// # What is promised
///
/// - **One leader.** A leader is a valid guard: [`is_leader`](Self::is_leader) looks at the clock at
///   every call, so that also a process that was frozen knows at its first look.
/// - **Loss is final for what it stops.** Work under [`while_leading`](Self::while_leading) is dropped
///   at its next await point when leadership is lost, also if it is won again immediately. What it has
///   sent or spawned goes on: let storage check the [token](Self::fencing_token).
/// - **A new leader** is there as soon as the backend grants the lock: immediately where a leader resigns
///   or its backend knows that it died, within the lease where it was frozen or cut off.
///
/// # Shutdown
///
/// From the moment that [`LockProvider::shutdown`] is called no candidate of this provider leads.
/// The lock is released immediately, or, where work under [`while_leading`](Self::while_leading) has begun, when
/// that ends; such work has the grace of the shutdown, and is stopped after that.
///
/// # Runtimes
///
/// The campaign is a task of the runtime in which it was begun, or, begun outside of one, of that in
/// which the candidate is asked first. When that runtime ends, leadership stays, since the candidate
/// holds the lock, and a task that asks or waits for the candidate in another runtime carries the
/// campaign on there.
#[derive(Clone)]
#[must_use = "dropping the last clone resigns"]
pub struct Leader {
    candidate: Arc<Candidate>,
    /// The term that `changed` has told of last.
    told: Option<u64>,
}

impl LockProvider {
    /// Begins to campaign for the leadership of this name; see [`Leader`].
    ///
    /// # Errors
    ///
    /// [`InvalidName`](crate::LockErrorKind::InvalidName) when the text is not a lock name.
    pub fn leader<N>(&self, name: N) -> Result<Leader, LockError>
    where
        N: TryInto<LockName>,
        N::Error: Into<LockError>,
    {
        let candidate = Candidate::new(self.clone(), self.lock(name)?);
        keep_campaigning(&candidate);
        Ok(Leader {
            candidate,
            told: None,
        })
    }
}

impl Leader {
    /// The name that is led.
    #[must_use]
    pub fn name(&self) -> &LockName {
        self.candidate.name()
    }

    /// Whether this instance leads, now. Looks at the clock, and never at the server: it is not true
    /// for longer than the lease is valid, whatever has become of the campaign. Lost and elected again
    /// since the last call, it leads: that this is another term, [`changed`](Self::changed) tells.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        let leads = self.candidate.leading().is_some();
        if !leads {
            keep_campaigning(&self.candidate);
        }
        leads
    }

    /// Waits for the next change of leadership, and returns whether this instance leads then. A new handle
    /// starts from "does not lead". `true` twice in a row is another term: leadership
    /// was lost and won again in between.
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let store = MemoryBackend::new();
    /// # let locks = LockProvider::new(store.clone());
    /// let mut leader = locks.leader("job:process-outbox")?;
    /// assert!(leader.changed().await?); // elected
    /// # store.revoke(leader.name());
    /// // .. an administrator takes the lock away ..
    /// assert!(!leader.changed().await?); // lost
    /// assert!(leader.changed().await?); // elected again
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::LockErrorKind::Closed) once the provider is shut down, after the end of
    /// leadership was returned.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was not returned is returned by the next call.
    ///
    /// # Panics
    ///
    /// When it is polled outside a tokio runtime with its timers enabled.
    pub async fn changed(&mut self) -> Result<bool, LockError> {
        let told = self.told;
        let new = |term: &Option<Arc<Term>>| {
            let number = term.as_ref().map(|term| term.number);
            (number != told).then_some(number)
        };
        self.told = self.wait_for(new).await?;
        Ok(self.told.is_some())
    }

    /// The fencing token of this term: greater than that of any earlier leader, the same at every
    /// call. Give it to the storage that the leader writes to.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::LockErrorKind::Lost) when this instance does not lead,
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the backend did not answer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn fencing_token(&self) -> Result<FencingToken, LockError> {
        match self.candidate.leading() {
            Some(term) => term.guard.fencing_token().await,
            None => {
                consume_budget().await;
                Err(LockError::lost("this instance does not lead").with_lock(self.name()))
            }
        }
    }

    /// Asks the store which instance leads, whether that is this one or another; `None` while none does. So that
    /// a follower can pass on what only the leader does: where [`LOCK_INSTANCE`](crate::LockSettings::instance)
    /// is the address at which each instance is reached, as below.
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let store = MemoryBackend::new();
    /// # let elected = LockProvider::new(store.clone().with_instance("10.0.0.5:8080")?).leader("job:process-outbox")?;
    /// # assert!(elected.clone().changed().await?);
    /// # let locks = LockProvider::new(store);
    /// let leader = locks.leader("job:process-outbox")?;
    ///
    /// // A route that only the leader serves.
    /// if !leader.is_leader() {
    ///     let answer = match leader.current().await? {
    ///         // 307 Temporary Redirect: the client repeats the request there, with its body.
    ///         Some(holder) => holder.instance().map(|address| format!("http://{address}/outbox")),
    ///         None => None, // 503: none leads at the moment
    ///     };
    /// #   assert_eq!(answer.as_deref(), Some("http://10.0.0.5:8080/outbox"));
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// The leader can be another by the time that it is asked: it looks at [`is_leader`](Self::is_leader) as
    /// well, and answers as a follower. In a route with many requests keep the answer for a moment: each call
    /// is one to the store.
    ///
    /// # Errors
    ///
    /// As [`LockProvider::holder`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    ///
    /// # Panics
    ///
    /// As [`LockProvider::holder`].
    pub async fn current(&self) -> Result<Option<Holder>, LockError> {
        self.candidate.locks().holder(self.name().clone()).await
    }

    /// Runs `work` as leader: waits until this instance leads, then runs it for as long as it does.
    /// When leadership is lost, `work` is dropped at its next await point; when it is done, this
    /// instance still leads.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::LockErrorKind::Lost) when leadership was lost before `work` was done: how far
    /// it came is unknown. [`Closed`](crate::LockErrorKind::Closed) when the provider was shut down
    /// before it began.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `work`; this instance still leads.
    ///
    /// # Panics
    ///
    /// When it is polled outside a tokio runtime with its timers enabled.
    pub async fn while_leading<F: Future>(&self, work: F) -> Result<F::Output, LockError> {
        self.term().await?.guard.protect(work).await
    }

    /// Waits until this instance leads; an error at the end of the provider.
    async fn term(&self) -> Result<Arc<Term>, LockError> {
        self.wait_for(Option::clone).await
    }

    /// Waits until `look` finds in the present term what it wants.
    async fn wait_for<T>(
        &self,
        look: impl Fn(&Option<Arc<Term>>) -> Option<T>,
    ) -> Result<T, LockError> {
        let candidate = &self.candidate;
        // What is waited for can be so already.
        consume_budget().await;
        // Before the first look, so that no change is missed.
        let mut changes = candidate.changes();
        loop {
            let term = candidate.leading();
            if let Some(found) = look(&term) {
                return Ok(found);
            }
            if candidate.is_over() {
                return Err(LockError::closed().with_lock(self.name()));
            }
            keep_campaigning(candidate);
            // Without the term itself, which this must not keep alive.
            let lost = term.map(|term| term.guard.lost());
            tokio::select! {
                _ = changes.changed() => {}
                () = either_lost(lost) => {}
                () = Closing::of(candidate.shared()) => {}
            }
        }
    }
}

/// Completes when the lock is lost; never without one.
async fn either_lost(lost: Option<Lost>) {
    match lost {
        Some(lost) => drop(lost.await),
        None => pending().await,
    }
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader")
            .field("lock", &self.name().label())
            .field("leads", &self.candidate.leading().is_some())
            .finish_non_exhaustive()
    }
}
