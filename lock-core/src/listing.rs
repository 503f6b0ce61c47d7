//! What is held in a store, as it knows.

use crate::{Holder, LockName};

/// What is held in a store, or as much of it as was asked for; from
/// [`LockProvider::list`](crate::LockProvider::list).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listing {
    locks: Vec<ListedLock>,
    is_complete: bool,
}

impl Listing {
    /// These locks, and no more than `limit` of them. For [backends](crate::backend::Backend::list), which find
    /// up to one more than that, if there is one more.
    #[must_use]
    pub fn new(mut locks: Vec<ListedLock>, limit: usize) -> Self {
        let is_complete = locks.len() <= limit;
        locks.truncate(limit);
        Self { locks, is_complete }
    }

    /// The same of a store of which not everything could be read.
    #[cfg(feature = "redis")]
    pub(crate) const fn incomplete(mut self) -> Self {
        self.is_complete = false;
        self
    }

    /// The locks, in no order that means something.
    #[must_use]
    pub fn locks(&self) -> &[ListedLock] {
        &self.locks
    }

    /// Whether these were all: no limit cut the list short, and nothing that could be a lock moved to another node of a
    /// Redis cluster while it was read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }
}

/// A lock that is held; from [`LockProvider::list`](crate::LockProvider::list).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedLock {
    key: String,
    name: Option<LockName>,
    holder: Holder,
    is_awaited: Option<bool>,
}

impl ListedLock {
    /// A lock of which nothing else is known. For [backends](crate::backend::Backend::list).
    #[must_use]
    pub fn new(key: impl Into<String>, holder: Holder) -> Self {
        Self {
            key: key.into(),
            name: None,
            holder,
            is_awaited: None,
        }
    }

    /// With its name, where the store has that.
    #[must_use]
    pub fn with_name(mut self, name: LockName) -> Self {
        self.name = Some(name);
        self
    }

    /// With whether another process waits for it, where the store has that.
    #[must_use]
    pub const fn with_awaited(mut self, is_awaited: bool) -> Self {
        self.is_awaited = Some(is_awaited);
        self
    }

    /// What stands for the lock in the store: the key of Redis, the advisory key of PostgreSQL, the key of the row
    /// in a lease table, the name of the lock file. Each is a hash over the namespace and the name.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its name, where the store has that: a lease table, and the memory of this process.
    #[must_use]
    pub fn name(&self) -> Option<&LockName> {
        self.name.as_ref()
    }

    /// Who holds it; of several, any.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Whether a process has waited for it since this holder has it; `None` where the store does not tell:
    /// PostgreSQL, and a lease table of processes that poll.
    #[must_use]
    pub fn is_awaited(&self) -> Option<bool> {
        self.is_awaited
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LockMode;

    #[test]
    fn a_listing_says_whether_there_was_more() {
        let lock = |key: u8| ListedLock::new(key.to_string(), Holder::new(LockMode::Exclusive));
        let locks: Vec<_> = (0..3).map(lock).collect();
        for (limit, shown, is_complete) in
            [(0, 0, false), (2, 2, false), (3, 3, true), (9, 3, true)]
        {
            let listing = Listing::new(locks.clone(), limit);
            assert_eq!(listing.locks().len(), shown);
            assert_eq!(listing.is_complete(), is_complete);
        }
    }
}
