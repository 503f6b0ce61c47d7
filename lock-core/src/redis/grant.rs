//! A granted lock, as users of the backend have it.

use std::fmt;
use std::future::Future;

use super::key::Key;
use crate::LockError;
use crate::backend::{Grant, Lease};
use crate::server::leased::KeyGrant;

/// A lock that is held in Redis. Dropping it starts the release.
pub struct RedisGrant(pub(super) KeyGrant<Key>);

impl Grant for RedisGrant {
    fn lease(&self) -> &Lease {
        self.0.lease()
    }

    fn release(self) -> impl Future<Output = Result<(), LockError>> + Send + 'static {
        self.0.release()
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        self.0.fencing_token()
    }

    fn hand_over(&mut self) -> bool {
        self.0.hand_over()
    }

    fn keep(&mut self) -> bool {
        self.0.keep()
    }
}

impl fmt::Debug for RedisGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisGrant")
            .field("lease", self.lease())
            .finish_non_exhaustive()
    }
}
