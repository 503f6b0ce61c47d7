//! What a backend is asked for.

use crate::LockName;

/// A request for one lock.
///
/// Today a name, locked exclusively. Later versions can ask for more, and say in their documentation
/// what a backend does that does not know of it: read what there is through the getters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockRequest {
    name: LockName,
}

impl LockRequest {
    /// A request for the lock of this name, exclusively.
    #[must_use]
    pub const fn new(name: LockName) -> Self {
        Self { name }
    }

    /// The name of the lock.
    #[must_use]
    pub const fn name(&self) -> &LockName {
        &self.name
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
