//! The provider of the process, for code that is handed none.

use std::sync::OnceLock;

use super::LockProvider;
use crate::LockError;

static INSTALLED: OnceLock<LockProvider> = OnceLock::new();

impl LockProvider {
    /// Makes `provider` the one that `#[distributed_lock]` uses by default, for as long as the
    /// process lives.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) when there is one already: two
    /// providers for one purpose are two places to lock in.
    pub fn install(provider: Self) -> Result<(), LockError> {
        INSTALLED.set(provider).map_err(|_| {
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
                "no lock provider is installed; call `LockProvider::install(provider)?` at the \
                 start of `main`, or name one with `provider = ..`",
            )
        })
    }
}
