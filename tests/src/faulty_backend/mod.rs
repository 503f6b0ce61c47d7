//! A backend that is broken on purpose, so that it is known what the [checker](crate::checker)
//! finds.
//!
//! It keeps the locks of one process, each with a lease that is not renewed, and does one thing
//! wrong, now and then. [`Bug::None`] does nothing wrong, and has to be judged so.

mod table;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_core::backend::{Attempt, Backend, Clock, Grant, Lease, LockRequest};
use lock_core::{LockError, LockName};

use table::Table;

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Nothing.
    None,
    /// A holder is given the token of the one before it.
    ReuseToken,
    /// A release frees the lock of any holder.
    ReleaseWithoutOwner,
    /// Tokens go through a number of 14 digits.
    RoundTokens,
    /// A lease that has ended is replaced by another.
    ValidAgain,
    /// A lock that is held is granted to another as well.
    GrantWhileHeld,
    /// A release is answered, and not made.
    ForgetRelease,
}

/// A backend that is broken on purpose. Clones are clients of the same locks.
#[derive(Clone)]
pub struct FaultyBackend {
    table: Arc<Table>,
    clock: Arc<dyn Clock>,
    lease: Duration,
}

impl FaultyBackend {
    /// No locks; their leases will end after `lease` on `clock`.
    #[must_use]
    pub fn new(bug: Bug, lease: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            table: Arc::new(Table::new(bug)),
            clock,
            lease,
        }
    }
}

impl fmt::Debug for FaultyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyBackend")
            .field("bug", &self.table.bug())
            .finish_non_exhaustive()
    }
}

impl Backend for FaultyBackend {
    type Grant = FaultyBackendGrant;

    const KIND: &'static str = "faulty_backend";

    async fn try_acquire(
        &self,
        request: &LockRequest,
    ) -> Result<Attempt<FaultyBackendGrant>, LockError> {
        let name = request.name();
        let asked = self.clock.now();
        Ok(match self.table.take(name, asked, asked + self.lease) {
            Ok(owner) => {
                // The holder has it for less time than the table.
                let until = asked + self.lease * 9 / 10;
                let lease = Lease::until(Arc::clone(&self.clock), until, self.lease / 3);
                Attempt::Granted(FaultyBackendGrant {
                    table: Arc::clone(&self.table),
                    name: name.clone(),
                    owner,
                    lease,
                    replaced: Lease::unbounded(),
                    told: AtomicBool::new(false),
                    released: false,
                })
            }
            Err(until) => Attempt::Held {
                retry_in: Some(until.saturating_sub(asked)),
            },
        })
    }

    fn changed(&self, _: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        self.table.changed()
    }

    async fn health(&self) -> Result<(), LockError> {
        Ok(())
    }
}

/// A lock that a faulty backend has granted.
pub struct FaultyBackendGrant {
    table: Arc<Table>,
    name: LockName,
    owner: u64,
    lease: Lease,
    /// What it has after the end of its lease, if that is replaced.
    replaced: Lease,
    /// Whether a client has seen that end.
    told: AtomicBool,
    released: bool,
}

impl fmt::Debug for FaultyBackendGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyBackendGrant")
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

impl Grant for FaultyBackendGrant {
    fn lease(&self) -> &Lease {
        let replaces = self.table.bug() == Bug::ValidAgain;
        if replaces && !self.lease.is_valid() && self.told.swap(true, Ordering::Relaxed) {
            return &self.replaced;
        }
        &self.lease
    }

    async fn release(mut self) -> Result<(), LockError> {
        self.released = true;
        // No other client need have it yet.
        let was_ours = self.lease.is_valid();
        if self.table.free(&self.name, self.owner) && was_ours {
            Ok(())
        } else {
            Err(LockError::lost("it was not ours any more"))
        }
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        let token = self.table.token(&self.name, self.owner);
        async move { token.ok_or_else(|| LockError::lost("it was not ours any more")) }
    }
}

impl Drop for FaultyBackendGrant {
    fn drop(&mut self) {
        if !self.released {
            self.table.free(&self.name, self.owner);
        }
    }
}
