//! What a process holds and waits for, and what it has lost and was refused.

use std::time::{Duration, SystemTime};

use crate::{LockName, LossReason};

/// What a provider holds and waits for, and what became of locks in this process lately; from
/// [`LockProvider::activity`](crate::LockProvider::activity).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Activity {
    pub(crate) locks: Vec<LocalLock>,
    pub(crate) losses: Vec<RecentLoss>,
    pub(crate) labels: Vec<LabelActivity>,
}

impl Activity {
    /// The locks that tasks of this provider hold or wait for, in no order that means something.
    #[must_use]
    pub fn locks(&self) -> &[LocalLock] {
        &self.locks
    }

    /// The last losses of this process, by whichever provider, the latest first: at most 50.
    #[must_use]
    pub fn losses(&self) -> &[RecentLoss] {
        &self.losses
    }

    /// What became of the acquires, for each [label](LockName::label) that this provider has had.
    #[must_use]
    pub fn labels(&self) -> &[LabelActivity] {
        &self.labels
    }
}

/// A lock that tasks of a provider hold or wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalLock {
    pub(crate) name: LockName,
    pub(crate) held_for: Option<Duration>,
    pub(crate) readers: usize,
    pub(crate) waiting: usize,
}

impl LocalLock {
    /// Its name: sensitive, where names have values of users. [`LockName::label`] is not.
    #[must_use]
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// For how long a task holds it, of several [readers](Self::readers) the first; `None` while none does, and
    /// after a release that [keeps](crate::LockPolicy::with_at_least) it.
    #[must_use]
    pub fn held_for(&self) -> Option<Duration> {
        self.held_for
    }

    /// How many tasks hold it [together](crate::DistributedLock::shared); zero where one holds it alone.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.readers
    }

    /// How many tasks wait for it, the one included that asks the store.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }
}

/// A lock that was lost while it was held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecentLoss {
    pub(crate) name: LockName,
    pub(crate) at: SystemTime,
    pub(crate) held_for: Duration,
    pub(crate) reason: LossReason,
}

impl RecentLoss {
    /// Its name: sensitive, where names have values of users. [`LockName::label`] is not.
    #[must_use]
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// When the process noticed it.
    #[must_use]
    pub fn at(&self) -> SystemTime {
        self.at
    }

    /// For how long it had been held by then.
    #[must_use]
    pub fn held_for(&self) -> Duration {
        self.held_for
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> LossReason {
        self.reason
    }
}

/// What became of the acquires of one [label](LockName::label), in this process, by whichever provider of the
/// same kind of backend.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LabelActivity {
    pub(crate) label: Box<str>,
    pub(crate) held: u64,
    pub(crate) waiting: u64,
    pub(crate) contended: u64,
    pub(crate) failed: u64,
}

impl LabelActivity {
    /// A template, or `entity:operation`; `other` for all beyond the first 1,000.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How many of its locks are held now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held
    }

    /// How many tasks wait for them now.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// How many acquires were contended, since the process began: another held the lock for all of the wait.
    #[must_use]
    pub fn contended(&self) -> u64 {
        self.contended
    }

    /// How many acquires failed, since the process began: the store did not answer, or refused.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed
    }
}
