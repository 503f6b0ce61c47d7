//! The locks of a faulty backend.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::LockName;
use tokio::sync::Notify;

use super::Bug;

/// As microseconds since 1970: 16 digits.
const FIRST_TOKEN: u64 = 1_790_000_000_000_000;

/// What is left of a number of 16 digits in 14.
const ROUNDED: u64 = 100;

/// Of so many chances to do wrong one is taken.
const CHANCES: u32 = 7;

pub(super) struct Table {
    bug: Bug,
    rows: Mutex<Rows>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Rows {
    holders: HashMap<LockName, Holder>,
    tokens: HashMap<LockName, u64>,
    owners: u64,
    issued: u64,
    chances: u32,
}

struct Holder {
    owner: u64,
    until: Duration,
}

impl Rows {
    /// Whether this is the time to do what is to be done wrong.
    fn strikes(&mut self) -> bool {
        self.chances += 1;
        self.chances.is_multiple_of(CHANCES)
    }
}

impl Table {
    pub(super) fn new(bug: Bug) -> Self {
        Self {
            bug,
            rows: Mutex::default(),
            changed: Arc::default(),
        }
    }

    pub(super) fn bug(&self) -> Bug {
        self.bug
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the new owner, or when the present one ends.
    pub(super) fn take(
        &self,
        name: &LockName,
        now: Duration,
        until: Duration,
    ) -> Result<u64, Duration> {
        let mut rows = self.rows();
        if let Some(holder) = rows.holders.get(name) {
            let (held, ends) = (holder.until > now, holder.until);
            if held && !(self.bug == Bug::GrantWhileHeld && rows.strikes()) {
                return Err(ends);
            }
        }
        rows.owners += 1;
        let owner = rows.owners;
        rows.holders.insert(name.clone(), Holder { owner, until });
        Ok(owner)
    }

    /// Frees the lock of this owner; whether it was its lock.
    pub(super) fn free(&self, name: &LockName, owner: u64) -> bool {
        let mut rows = self.rows();
        let is_owner = rows
            .holders
            .get(name)
            .is_some_and(|holder| holder.owner == owner);
        if is_owner && self.bug == Bug::ForgetRelease && rows.strikes() {
            // Not even its lease ends it.
            if let Some(holder) = rows.holders.get_mut(name) {
                holder.until = Duration::MAX;
            }
            return true;
        }
        if is_owner || self.bug == Bug::ReleaseWithoutOwner {
            rows.holders.remove(name);
            drop(rows);
            self.changed.notify_waiters();
        }
        is_owner
    }

    /// The next token, for the owner.
    pub(super) fn token(&self, name: &LockName, owner: u64) -> Option<u64> {
        let mut rows = self.rows();
        if rows.holders.get(name)?.owner != owner {
            return None;
        }
        rows.issued += 1;
        let mut token = FIRST_TOKEN + rows.issued;
        match self.bug {
            Bug::ReuseToken if rows.strikes() => {
                token = rows.tokens.get(name).copied().unwrap_or(token);
            }
            Bug::RoundTokens => token = token / ROUNDED * ROUNDED,
            _ => {}
        }
        rows.tokens.insert(name.clone(), token);
        Some(token)
    }

    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changed = Box::pin(Arc::clone(&self.changed).notified_owned());
        changed.as_mut().enable();
        changed
    }
}
