//! How a caller wants to hold a lock.

use crate::backend::DynBackend;
use crate::permits::Permits;
use crate::{LockError, LockMode, LockPolicy};

/// What was asked for: in which mode, or as one of so many. It is [checked](Self::check) before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    permits: Option<Permits>,
    mode: LockMode,
}

impl Terms {
    /// Alone.
    pub(crate) const EXCLUSIVE: Self = Self {
        permits: None,
        mode: LockMode::Exclusive,
    };

    pub(crate) const fn with_permits(mut self, permits: Permits) -> Self {
        self.permits = Some(permits);
        self
    }

    pub(crate) const fn shared(mut self) -> Self {
        self.mode = LockMode::Shared;
        self
    }

    pub(crate) const fn permits(self) -> Option<Permits> {
        self.permits
    }

    pub(crate) const fn mode(self) -> LockMode {
        self.mode
    }

    /// Whether there can be such a lock, under this policy in this backend; gives the number of permits.
    pub(crate) fn check(
        self,
        policy: &LockPolicy,
        backend: &dyn DynBackend,
    ) -> Result<Option<usize>, LockError> {
        policy.check()?;
        if self.mode == LockMode::Shared {
            self.check_shared(policy, backend)?;
        }
        self.permits.map(Permits::check).transpose()
    }

    fn check_shared(self, policy: &LockPolicy, backend: &dyn DynBackend) -> Result<(), LockError> {
        if self.permits.is_some() {
            return Err(LockError::misconfigured(
                "a lock cannot be `shared` and have `permits`: any number of readers hold it together; take \
                 `shared` off, or the number of permits",
            ));
        }
        if policy.at_least().is_some() {
            return Err(LockError::misconfigured(
                "a lock cannot be `shared` under a policy with `at_least`: a reader closes the lock to no other \
                 reader; take `shared` off, or `at_least`",
            ));
        }
        if !backend.has_readers() {
            return Err(LockError::misconfigured(format!(
                "the backend `{}` has no `shared` locks: take `shared` off, so that each reader holds the lock \
                 alone, or keep the locks where a backend has them",
                backend.kind()
            )));
        }
        Ok(())
    }
}
