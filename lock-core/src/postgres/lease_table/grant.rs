//! A granted lock, as users of the backend have it.

use std::fmt;
use std::future::Future;

use super::waiters::TableKey;
use crate::LockError;
use crate::backend::{Grant, Lease};
use crate::server::leased::KeyGrant;

/// A lock that is held as a row. Dropping it starts the release.
pub struct LeaseTableGrant(pub(super) KeyGrant<TableKey>);

impl Grant for LeaseTableGrant {
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

impl fmt::Debug for LeaseTableGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseTableGrant")
            .field("lease", self.lease())
            .finish_non_exhaustive()
    }
}
