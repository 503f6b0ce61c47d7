//! How long to wait for a lock and how long to hold it.

use std::time::Duration;

use crate::LockError;

/// How long a lock is kept at most; shorter than the store remembers the newest token.
const LONGEST_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long to wait for a lock, how long to hold it at most, and how long to keep it at least.
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
    at_least: Option<Duration>,
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
            at_least: None,
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

    /// The same policy for a lock that is kept so long from when it was acquired, also after its release.
    ///
    /// For jobs that a timer starts in each instance and that are over sooner than the timers differ: the
    /// instance whose timer is late finds the lock still closed, and does not run the job again. Choose less
    /// than the time between two ticks, and more than the timers differ.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// const EACH_MINUTE: LockPolicy = LockPolicy::background_job().with_at_least(Duration::from_secs(50));
    ///
    /// let guard = locks.acquire("job:report", EACH_MINUTE).await?;
    /// guard.release().await?; // immediately
    /// assert!(locks.try_acquire("job:report", EACH_MINUTE).await?.is_none()); // for 50 s
    /// # Ok(()) }
    /// ```
    ///
    /// - The release answers as without it. Until the time is over the lock is contended for every caller, in
    ///   this process as well; those that wait are granted it then.
    /// - Redis and the lease table of PostgreSQL keep it, by the clock of the server: also after a crash of the process
    ///   and after its end. Where a server loses its data, it is free after the quarantine.
    /// - With the other backends the process keeps it, while it and the runtime of the release live: its end
    ///   frees the lock, as do a crash and a [shutdown](crate::LockProvider::shutdown) of the provider. The lock
    ///   stays the server's lock of its session meanwhile, or that of the file. A backend whose store has a clock
    ///   can do better: [`Grant::keep`](crate::backend::Grant::keep).
    /// - A lock that was lost is not kept. Nor is one that was granted too late, to a caller that had left.
    ///
    /// It cannot be more than [`max_hold`](Self::with_max_hold), after which a lock is lost, or than a week, for
    /// which a table of runs is the better memory: an acquire with such a policy is
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured).
    pub const fn with_at_least(mut self, at_least: Duration) -> Self {
        self.at_least = Some(at_least);
        self
    }

    /// The same policy without a bound for the hold.
    pub(crate) const fn without_max_hold(mut self) -> Self {
        self.max_hold = None;
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

    /// How long this policy keeps the lock at least; `None` for no longer than it is held.
    #[must_use]
    pub const fn at_least(&self) -> Option<Duration> {
        self.at_least
    }

    /// Whether the times fit to each other. Each acquire looks; this is for those who take a policy earlier.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) when `at_least` is above `max_hold` or a week.
    pub fn check(&self) -> Result<(), LockError> {
        match (self.at_least, self.max_hold) {
            (Some(at_least), Some(max_hold)) if at_least > max_hold => {
                Err(LockError::misconfigured(format!(
                    "`at_least` ({at_least:?}) is above `max_hold` ({max_hold:?}), after which the lock is \
                     lost and not kept: make `max_hold` the longer one"
                )))
            }
            (Some(at_least), _) if at_least > LONGEST_KEPT => {
                Err(LockError::misconfigured(format!(
                    "`at_least` ({at_least:?}) is above a week: note in a table when the job ran, and ask that instead"
                )))
            }
            _ => Ok(()),
        }
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
