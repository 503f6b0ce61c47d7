//! How long to wait for a lock and how long to hold it.

use std::time::Duration;

/// How long to wait for a lock, and how long to hold it at most.
///
/// # Default
///
/// [`user_request`](Self::user_request): wait 5 s, hold without a bound.
///
/// ```
/// use std::time::Duration;
/// use lock_core::LockPolicy;
///
/// const REBUILD: LockPolicy = LockPolicy::long_operation().with_max_hold(Duration::from_secs(900));
/// assert_eq!(REBUILD.wait(), Duration::from_secs(300));
/// assert_eq!(LockPolicy::from(Duration::ZERO), LockPolicy::background_job());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a policy does nothing until a lock is acquired with it"]
pub struct LockPolicy {
    wait: Duration,
    max_hold: Option<Duration>,
}

impl LockPolicy {
    /// For jobs that run again soon: try once, do not wait.
    ///
    /// Two instances never run the job together. One that starts it when the first has ended runs it again:
    /// where once per tick is meant, store when it was done, and look at that under the lock.
    pub const fn background_job() -> Self {
        Self::waiting(Duration::ZERO)
    }

    /// For requests that a person waits for: wait 5 s.
    pub const fn user_request() -> Self {
        Self::waiting(Duration::from_secs(5))
    }

    /// For rebuilds, imports, migrations: wait 5 min.
    pub const fn long_operation() -> Self {
        Self::waiting(Duration::from_secs(300))
    }

    const fn waiting(wait: Duration) -> Self {
        Self {
            wait,
            max_hold: None,
        }
    }

    /// The same policy with another wait: at most `wait` for the lock; zero tries once, and
    /// [`Duration::MAX`] waits for ever.
    pub const fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The same policy with a bound for the hold: the lock is declared lost, which stops the work that it
    /// protects, once it has been held for `max_hold`. A hung handler cannot hold the lock longer than
    /// this.
    pub const fn with_max_hold(mut self, max_hold: Duration) -> Self {
        self.max_hold = Some(max_hold);
        self
    }

    /// How long this policy waits for the lock.
    #[must_use]
    pub const fn wait(&self) -> Duration {
        self.wait
    }

    /// How long this policy holds the lock at most; `None` for as long as the work takes.
    #[must_use]
    pub const fn max_hold(&self) -> Option<Duration> {
        self.max_hold
    }
}

impl Default for LockPolicy {
    fn default() -> Self {
        Self::user_request()
    }
}

/// A bare duration is how long to wait.
impl From<Duration> for LockPolicy {
    fn from(wait: Duration) -> Self {
        Self::waiting(wait)
    }
}
