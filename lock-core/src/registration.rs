//! What a backend module provides, so that configuration can choose it.

use std::pin::Pin;

use crate::LockError;
use crate::backend::DynBackend;
use crate::health::Companion;
use crate::settings::{LockSettings, ProviderKind};

/// A future of this module's functions.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Connects to where the locks are.
type Connect = fn(&LockSettings) -> BoxFuture<'_, Result<Box<dyn DynBackend>, LockError>>;

/// Connects to a server that does not hold the locks; gives none where it is not understood, and no lock
/// needs it.
type ConnectCompanion =
    fn(&LockSettings, ProviderKind) -> BoxFuture<'_, Result<Option<Box<dyn Companion>>, LockError>>;

/// A backend that configuration can choose. The errors of its functions name the variable that is wrong.
pub(crate) struct Registration {
    pub(crate) kind: ProviderKind,
    pub(crate) connect: Connect,
    /// For a backend with a server: watches it while locks of that kind are held elsewhere.
    pub(crate) companion: Option<ConnectCompanion>,
}

/// The variable can be about a server of another engine, which the service has and the locks do not
/// need. The errors of connection strings do not repeat them.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) fn not_understood(error: &LockError, variable: &str) {
    tracing::warn!(
        %error,
        "{variable} is not understood; the locks do not need that server, and it is not watched"
    );
}
