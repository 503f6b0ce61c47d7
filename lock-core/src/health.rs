//! Whether a backend is well.

use std::time::Duration;

use crate::LockError;

/// The answer of a backend to [`LockProvider::health`](crate::LockProvider::health).
#[derive(Debug)]
pub struct Health {
    backend: &'static str,
    latency: Duration,
    result: Result<(), LockError>,
}

impl Health {
    pub(crate) fn new(
        backend: &'static str,
        latency: Duration,
        result: Result<(), LockError>,
    ) -> Self {
        Self {
            backend,
            latency,
            result,
        }
    }

    /// Whether the backend could grant locks.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.result.is_ok()
    }

    /// What kind of backend it is: `memory`, `file`, ..
    #[must_use]
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// How long the answer took.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.latency
    }

    /// Why the backend could not grant locks, where it could not.
    #[must_use]
    pub fn error(&self) -> Option<&LockError> {
        self.result.as_ref().err()
    }
}
