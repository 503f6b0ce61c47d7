//! The provider of the process, for code that is handed none.

use std::sync::OnceLock;

use super::LockProvider;
use crate::LockError;

static INSTALLED: OnceLock<LockProvider> = OnceLock::new();

impl LockProvider {
    /// Makes this provider the one that `#[distributed_lock]` uses by default, for as long as the
    /// process lives.
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// let locks = LockProvider::new(MemoryBackend::new());
    /// locks.clone().install()?; // at the start of `main`
    /// assert_eq!(LockProvider::installed()?.backend(), "memory");
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) when there is one already: two
    /// providers for one purpose are two places to lock in.
    pub fn install(self) -> Result<(), LockError> {
        INSTALLED.set(self).map_err(|_| {
            LockError::misconfigured(
                "a lock provider is installed already; install one, once, at the start of `main`",
            )
        })
    }

    /// The provider that was installed.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) when there is none.
    pub fn installed() -> Result<&'static Self, LockError> {
        INSTALLED.get().ok_or_else(|| {
            LockError::misconfigured(
                "no lock provider is installed; call `locks.clone().install()?` at the start of \
                 `main`, or name one with `provider = ..`",
            )
        })
    }
}
