//! What a backend is asked for.

use std::time::Duration;

use crate::{LockMode, LockName};

/// A request for one lock.
///
/// A name, whether it is locked [exclusively or shared](Self::mode), and perhaps how long the lock is to be kept.
/// Later versions can ask for more, and say in their documentation what a backend does that does not know of it:
/// read what there is through the getters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockRequest {
    name: LockName,
    mode: LockMode,
    at_least: Option<Duration>,
}

impl LockRequest {
    /// A request for the lock of this name, exclusively.
    #[must_use]
    pub const fn new(name: LockName) -> Self {
        Self {
            name,
            mode: LockMode::Exclusive,
            at_least: None,
        }
    }

    /// The same request in this mode.
    #[must_use]
    pub const fn with_mode(mut self, mode: LockMode) -> Self {
        self.mode = mode;
        self
    }

    /// The same request for a lock that is [to be kept](Self::at_least).
    #[must_use]
    pub const fn with_at_least(mut self, at_least: Option<Duration>) -> Self {
        self.at_least = at_least;
        self
    }

    /// The name of the lock.
    #[must_use]
    pub const fn name(&self) -> &LockName {
        &self.name
    }

    /// How the lock is to be held. [`Shared`](LockMode::Shared) is asked only of a backend that
    /// [can do it](super::Backend::SHARED).
    #[must_use]
    pub const fn mode(&self) -> LockMode {
        self.mode
    }

    /// Whether it asks for a lock that others can hold together with the caller.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self.mode, LockMode::Shared)
    }

    /// How long the lock is to be kept from when it is granted, also after its release and after a crash of the
    /// holder: for a store with a clock of its own, whose [`Grant::keep`](super::Grant::keep) says so. Other
    /// stores have no use for it: the library keeps the grant itself.
    #[must_use]
    pub const fn at_least(&self) -> Option<Duration> {
        self.at_least
    }

    pub(crate) fn into_name(self) -> LockName {
        self.name
    }
}

impl From<LockName> for LockRequest {
    fn from(name: LockName) -> Self {
        Self::new(name)
    }
}
