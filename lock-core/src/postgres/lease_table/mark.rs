//! Says in the table that locks are kept there, for processes that use another provider by mistake.
//!
//! A session can hold the [mark](crate::postgres::mark) as an advisory lock; behind a transaction pooler there is
//! none. So a process has a row instead, with a lease that it renews, under a key that those who look can
//! compute the range of. A row is there for others once its transaction has ended: the look that matters is in a
//! later one than the first write.

use std::time::Duration;

use super::key::RowKey;
use crate::postgres::mark::Mark;
use crate::settings::ProviderKind;
use crate::{LockError, entropy};

/// The mark of one process.
#[derive(Clone, Debug)]
pub(super) struct RowMark {
    mark: Mark,
    namespace: String,
    key: RowKey,
}

impl RowMark {
    /// How long a mark is seen whose process has vanished.
    pub(super) const LASTS: Duration = Duration::from_secs(30);

    /// Between renewals.
    pub(super) const RENEWED: Duration = Duration::from_secs(10);

    /// Between looks while another provider has a mark.
    pub(super) const LOOKED: Duration = Duration::from_secs(1);

    pub(super) fn new(mark: Mark, namespace: &str) -> Result<Self, LockError> {
        let process = u32::from_ne_bytes(entropy::bytes()?);
        Ok(Self {
            mark,
            namespace: namespace.to_owned(),
            key: RowKey::mark(namespace, process),
        })
    }

    pub(super) fn key(&self) -> RowKey {
        self.key
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The keys that sessions hold whose locks are elsewhere, each with its position.
    pub(super) fn others(&self) -> String {
        self.mark.keys_of_others()
    }

    /// Which provider has this position; none where a switch to it is allowed.
    pub(super) fn other(&self, position: Option<i32>) -> Option<ProviderKind> {
        self.mark.other(position)
    }

    /// Why no lock is granted beside those of the other.
    pub(super) fn refusal(&self, other: ProviderKind) -> LockError {
        self.mark.refusal(other)
    }
}
