//! The seam for infrastructure: what a store of locks must be able to do.
//!
//! Waiting, deadlines, order, retries, cancellation and metrics are written once, in front of this
//! trait. A backend answers four questions: can I have this lock now, when is it worth asking
//! again, are you well, and (of what it has granted) is it still mine.
//!
//! # Rules
//!
//! 1. **At most one live grant per name**, for all clients: two providers over one backend, or the
//!    same one twice. A backend never grants again what it has granted and not taken back. Where it has
//!    [readers](Backend::SHARED): any number of live grants that were asked for as
//!    [shared](crate::LockMode::Shared), or one exclusive one, and never both.
//! 2. **Validity counts from before the request.** A [`Lease`] must end, on its clock, before the
//!    store can give the lock to another client.
//! 3. **A dropped grant is released**, without a runtime and without blocking: the release is
//!    started by the drop and goes on by itself. A release that was polled once and then dropped
//!    goes on too.
//! 4. **A dropped `try_acquire` leaks nothing.** The queue drives each command to its end, also when
//!    its caller has left; only the end of the runtime drops one, and then a grant which arrives
//!    later must be given back.
//! 5. **Errors are not answers.** "Held by another" is [`Attempt::Held`]; whatever else keeps the
//!    backend from granting is an error, [`unavailable`](LockError::unavailable) when a retry can
//!    help.
//! 6. Fairness between processes is not required, but a backend that serves several processes should not
//!    let one that always has local waiters starve the others.
//!
//! # Errors
//!
//! | what happened | made by |
//! |---|---|
//! | the store did not answer, or cannot work now | [`LockError::unavailable`] |
//! | the set-up is wrong: rights, a setting, a server that cannot do it | [`LockError::misconfigured`] |
//! | the grant is not ours any more | [`LockError::lost`] |
//! | the store cannot have this name | [`LockError::invalid_name`] |
//!
//! [`LockError::with_source`] adds the cause; the library adds the lock and the wait. That another holds the
//! lock is no error here ([`LockError::contended`] is the library's), nor is its own shutdown
//! ([`LockError::closed`]).
//!
//! # Writing one
//!
//! A complete backend, for the locks of one process:
//!
//! ```
//! use std::collections::{HashMap, HashSet};
//! use std::future::{Future, ready};
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use lock_core::backend::{Attempt, Backend, Grant, Lease, LockRequest};
//! use lock_core::{LockError, LockName, LockProvider};
//! use tokio::sync::Notify;
//!
//! #[derive(Clone, Default)]
//! struct Shelf {
//!     held: Arc<Mutex<HashSet<LockName>>>,
//!     released: Arc<Notify>,
//!     tokens: Arc<AtomicU64>,
//! }
//!
//! struct Taken {
//!     shelf: Shelf,
//!     name: LockName,
//!     lease: Lease,
//! }
//!
//! impl Backend for Shelf {
//!     type Grant = Taken;
//!     const KIND: &'static str = "shelf";
//!
//!     async fn try_acquire(&self, request: &LockRequest) -> Result<Attempt<Taken>, LockError> {
//!         let name = request.name().clone();
//!         if !self.held.lock().unwrap().insert(name.clone()) {
//!             // With no wake-up of its own it would say when to ask again.
//!             return Ok(Attempt::Held { retry_in: None });
//!         }
//!         Ok(Attempt::Granted(Taken {
//!             shelf: self.clone(),
//!             name,
//!             // A store with a lease passes when it ends: see `Lease::until`.
//!             lease: Lease::unbounded(),
//!         }))
//!     }
//!
//!     fn changed(&self, _: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
//!         // Registered now, and not at the first poll: what happens in between is not missed.
//!         let mut changed = Box::pin(Arc::clone(&self.released).notified_owned());
//!         changed.as_mut().enable();
//!         changed
//!     }
//!
//!     async fn health(&self) -> Result<(), LockError> {
//!         Ok(())
//!     }
//! }
//!
//! impl Grant for Taken {
//!     fn lease(&self) -> &Lease {
//!         &self.lease
//!     }
//!
//!     async fn release(self) -> Result<(), LockError> {
//!         Ok(()) // the drop does it
//!     }
//!
//!     fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
//!         ready(Ok(self.shelf.tokens.fetch_add(1, Ordering::Relaxed) + 1))
//!     }
//! }
//!
//! impl Drop for Taken {
//!     fn drop(&mut self) {
//!         self.shelf.held.lock().unwrap().remove(&self.name);
//!         self.shelf.released.notify_waiters();
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), LockError> {
//! let locks = LockProvider::new(Shelf::default());
//! let guard = locks.lock("order:process:42")?.acquire(Duration::ZERO).await?;
//! assert!(locks.lock("order:process:42")?.try_acquire(Duration::ZERO).await?.is_none());
//! guard.release().await?;
//! # Ok(())
//! # }
//! ```

mod erased;
mod providers;
mod request;

use std::future::Future;
use std::time::Duration;

pub use crate::lease::{BootClock, Clock, Lease, LossReason, TokioClock};

use crate::{Holder, Listing, LockError, LockName};

pub use providers::Providers;
pub use request::LockRequest;

pub(crate) use erased::{Begun, Command, DynBackend, Granted, Held, ManyCommand, erase};

/// A store of locks. See the [module](self) for its rules and a complete example.
///
/// Methods are called concurrently, from any task of any runtime.
pub trait Backend: Send + Sync + 'static {
    /// What it grants.
    type Grant: Grant;

    /// What operators call it: the value of the label `backend` in metrics.
    const KIND: &'static str;

    /// Whether [`try_acquire`](Self::try_acquire) is ready at its first poll and dropping a grant
    /// completes its release: true for a store in memory, never for one behind a socket. The
    /// library then allocates no future for either.
    const IMMEDIATE: bool = false;

    /// Whether it grants locks that are [shared](LockRequest::mode). As provided it does not: the library asks
    /// for none then, and tells the caller that the set-up is wrong.
    ///
    /// A backend that does grants no shared lock while a request for the exclusive one that was refused beside readers
    /// [waits](Self::changed), in any process: readers that come and go would keep a writer out for ever. Behind another
    /// writer it is so from its next try at the latest. A writer that waited and has gone, or has crashed, keeps readers
    /// out no longer than a lease.
    ///
    /// A request waits from its refusal and [registration](Self::changed) to the end of that registration. The library
    /// registers a request that goes on waiting anew before the registration that it had ends, so that a writer is
    /// registered all the time, but for the moment from its wake-up until its task runs, and while the store does not
    /// answer.
    const SHARED: bool = false;

    /// Tries once to take the lock, without waiting for its holder.
    ///
    /// # Errors
    ///
    /// Whatever kept the store from answering.
    fn try_acquire(
        &self,
        request: &LockRequest,
    ) -> impl Future<Output = Result<Attempt<Self::Grant>, LockError>> + Send;

    /// Tries once to take each of these locks, until `limit` of them are granted; their names are
    /// distinct. Returns what was granted, each with the position of its request.
    ///
    /// As provided it tries one after the other.
    ///
    /// # Errors
    ///
    /// Whatever kept the store from answering; what had been granted is released.
    fn try_acquire_many(
        &self,
        requests: &[LockRequest],
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(usize, Self::Grant)>, LockError>> + Send {
        async move {
            let mut granted = Vec::new();
            for (position, request) in requests.iter().enumerate() {
                if granted.len() == limit {
                    break;
                }
                if let Attempt::Granted(grant) = self.try_acquire(request).await? {
                    granted.push((position, grant));
                }
            }
            Ok(granted)
        }
    }

    /// Completes when the lock may have become free. It is registered when this call returns, so
    /// that a release between the next try and the first poll is not missed. Completing too often
    /// costs a try; a wake-up that can be lost needs the `retry_in` of [`Attempt::Held`].
    fn changed(&self, request: &LockRequest) -> impl Future<Output = ()> + Send + 'static;

    /// Asks the store who holds the lock of this name; `None` while it is free. Takes no lock, waits for
    /// none, and nothing is decided by the answer.
    ///
    /// A holder that has crashed is not named once its lock is free. Of several that hold it together, any is
    /// named.
    ///
    /// As provided, the backend does not tell: "free" would be an answer that others rely on.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) where the store does not tell;
    /// whatever kept it from answering.
    fn holder(
        &self,
        name: &LockName,
    ) -> impl Future<Output = Result<Option<Holder>, LockError>> + Send {
        let _ = name;
        async {
            Err(LockError::misconfigured(format!(
                "the backend `{}` does not tell who holds a lock; ask for that where one of this library \
                 holds the locks",
                Self::KIND
            )))
        }
    }

    /// Asks the store what is held in it, in all namespaces: no more than `limit` locks, and whether there were
    /// more. Takes no lock, and nothing is decided by the answer.
    ///
    /// As provided, the backend does not tell: an empty list would be an answer that others rely on.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) where the store does not tell;
    /// whatever kept it from answering.
    fn list(&self, limit: usize) -> impl Future<Output = Result<Listing, LockError>> + Send {
        let _ = limit;
        async {
            Err(LockError::misconfigured(format!(
                "the backend `{}` does not list what is held; ask for that where one of this library \
                 holds the locks",
                Self::KIND
            )))
        }
    }

    /// What this client is called in the store, where [`holder`](Self::holder) and [`list`](Self::list) name its
    /// instance. As provided it is not called anything.
    fn instance(&self) -> Option<String> {
        None
    }

    /// Asks the store whether it could grant locks now. Takes none.
    ///
    /// # Errors
    ///
    /// Why it could not.
    fn health(&self) -> impl Future<Output = Result<(), LockError>> + Send;

    /// The count of the providers over this backend, for one that several can share. As provided there
    /// is none, and the shutdown of each provider closes the backend.
    fn providers(&self) -> Option<&Providers> {
        None
    }

    /// Closes the connections, threads and files of this backend, also while clones of it or grants
    /// live. Called by the shutdown of the last provider over it, after the releases, once for each call
    /// of that shutdown; completes when they are closed, and is waited for by up to a response timeout.
    ///
    /// Grants that are left are lost from here on. A later question is answered
    /// [`Closed`](LockError::closed). As provided it does nothing.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the closing goes on when the future is dropped.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// The answer to one try.
#[derive(Debug)]
pub enum Attempt<G> {
    /// The lock is ours.
    Granted(G),
    /// The lock is held by another.
    Held {
        /// Ask again after this long, also without a [change](Backend::changed). `None`: a change
        /// never goes unnoticed.
        retry_in: Option<Duration>,
    },
}

/// A lock that was granted. Dropping it starts the release.
pub trait Grant: Send + Sync + 'static {
    /// How long it is ours.
    fn lease(&self) -> &Lease;

    /// Releases the lock.
    ///
    /// # Errors
    ///
    /// The store did not answer, or the lock was not ours any more.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the release goes on when the future is dropped.
    fn release(self) -> impl Future<Output = Result<(), LockError>> + Send + 'static;

    /// A number greater than what any earlier holder of this name was given, and less than what any
    /// later one will be. Called while the lease is valid, and again only when no answer came.
    /// Never called for a grant that is [shared](crate::LockMode::Shared).
    ///
    /// # Errors
    ///
    /// The store did not answer, or the lock was not ours any more.
    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static;

    /// Lets this grant serve another holder in the same process, after the one that it was granted to: the
    /// lease goes on, and each [token](Self::fencing_token) that is asked for from now on is greater than
    /// all before it. True if it can; as provided it cannot, and the lock is released between two holders.
    ///
    /// Called when a holder releases the lock while a task of the same provider waits for it, and the
    /// [time for that](crate::LockProviderBuilder::local_handover) is not over. Worth it where a release and
    /// an acquire are slow: behind a socket. Never called for a grant that is shared, nor for a reader
    /// that waits, nor where the request had an [`at_least`](LockRequest::at_least).
    fn hand_over(&mut self) -> bool {
        false
    }

    /// From now on the release of this grant, by a call or a drop, leaves the lock closed until
    /// [`at_least`](LockRequest::at_least) of its request is over, counted from the grant: no client holds it
    /// then, and it is contended. True if the store does that by a clock of its own; as provided it does not, and the
    /// library keeps the grant until then.
    ///
    /// Called just before a release within that time, of a lock that is not lost. Such a store keeps the lock
    /// closed for the same time where the holder is gone without a release. A grant that is given back otherwise,
    /// since its caller had left, is not kept.
    fn keep(&mut self) -> bool {
        false
    }
}
