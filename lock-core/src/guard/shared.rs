//! A guard that more than one party can look at, and one can take.

use std::fmt;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::{LockGuard, Lost};
use crate::backend::Granted;
use crate::{FencingToken, LockError, LockName};

/// What a layer and the handler inside it share. The one that [takes](Self::take) the guard owns the
/// release from then on; the lock is released as well when the last of these is dropped untaken.
#[doc(hidden)]
#[derive(Clone)]
pub struct SharedGuard(Granted);

impl SharedGuard {
    pub(super) fn new(held: &Granted) -> Self {
        held.hold.shared.store(true, Ordering::Release);
        Self(Granted::clone(held))
    }

    /// What does not own the guard: there is none to take.
    pub(super) fn view(held: &Granted) -> Self {
        Self(Granted::clone(held))
    }

    /// The guard, for the first who asks.
    #[must_use = "a guard that is dropped releases the lock"]
    pub fn take(&self) -> Option<LockGuard> {
        let shared = self.0.hold.shared.swap(false, Ordering::AcqRel);
        shared.then(|| LockGuard::new(Granted::clone(&self.0)))
    }

    /// Whether the guard was taken.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        !self.0.hold.is_shared()
    }

    /// As [`LockGuard::name`].
    #[must_use]
    pub fn name(&self) -> &LockName {
        &self.0.hold.name
    }

    /// As [`LockGuard::is_valid`]; false also once the lock was released.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.0.is_valid()
    }

    /// As [`LockGuard::check`]; an error also once the lock was released.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::LockErrorKind::Lost).
    pub fn check(&self) -> Result<(), LockError> {
        self.0.check()
    }

    /// As [`LockGuard::lost`].
    pub fn lost(&self) -> Lost {
        Lost::new(Granted::clone(&self.0))
    }

    /// As [`LockGuard::cancellation_token`].
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.0.cancellation_token()
    }

    /// As [`LockGuard::fencing_token`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn fencing_token(&self) -> Result<FencingToken, LockError> {
        self.0.fencing_token().await
    }
}

impl fmt::Debug for SharedGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedGuard").field(&self.0.hold).finish()
    }
}
