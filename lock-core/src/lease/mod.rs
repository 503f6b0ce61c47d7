//! How long a lock is ours: a deadline that is pushed forward, and a loss that latches.

mod clock;
mod deadlines;
mod latch;
#[cfg(all(test, lock_model))]
mod models;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

pub use clock::{BootClock, Clock, TokioClock};
pub(crate) use deadlines::Deadlines;
pub(crate) use latch::{Latch, Registration};

/// Why a lock that was ours is not any more.
///
/// ```
/// # use std::time::Duration;
/// # use lock_core::{LockError, LockPolicy, LockProvider, LossReason, memory::MemoryBackend};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// # let locks = LockProvider::new(MemoryBackend::new());
/// let policy = LockPolicy::background_job().with_max_hold(Duration::from_millis(20));
/// let guard = locks.acquire("job:cleanup-tokens", policy).await?;
/// assert_eq!(guard.lost().await, LossReason::MaxHold);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum LossReason {
    /// The lease ended without a renewal: this process was frozen, or cut off from the server.
    Expired = 1,
    /// The connection that the lock lived on is gone.
    Disconnected,
    /// The store says that the lock is not ours: it was deleted, or taken away.
    Revoked,
    /// The lock was held for as long as its policy allows.
    MaxHold,
    /// The provider was shut down while the lock was held.
    Shutdown,
    /// The server that kept it only reads now: it became a standby or a replica, and another one grants the
    /// locks.
    ReadOnly,
}

impl LossReason {
    /// The value of the label `reason` in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Disconnected => "disconnected",
            Self::Revoked => "revoked",
            Self::MaxHold => "max-hold",
            Self::Shutdown => "shutdown",
            Self::ReadOnly => "read-only",
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Expired,
            2 => Self::Disconnected,
            3 => Self::Revoked,
            4 => Self::MaxHold,
            5 => Self::Shutdown,
            6 => Self::ReadOnly,
            _ => return None,
        })
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "its lease ended without a renewal",
            Self::Disconnected => "the connection that held it is gone",
            Self::Revoked => {
                "the store no longer has it as ours: it was deleted or taken over, or the store lost its data"
            }
            Self::MaxHold => "it was held for longer than its policy allows",
            Self::Shutdown => "the provider was shut down",
            Self::ReadOnly => "the server that kept it only reads now",
        })
    }
}

/// The one notion of validity, for every backend.
///
/// A lease is valid until its deadline passes on its clock, or until the backend says that it is
/// [lost](Self::lose). Either is final: a lease never becomes valid again. Clones are the same
/// lease; one lease can cover all grants of a session.
///
/// Give it a deadline that ends *before* the store can grant the lock to another client: count from
/// before the request was sent, and take a safety margin off.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use lock_core::backend::{BootClock, Clock, Lease, LossReason};
///
/// let clock = Arc::new(BootClock);
/// let sent = clock.now();
/// // .. the request that grants, answered ..
/// let lease = Lease::until(clock, sent + Duration::from_secs(29), Duration::from_secs(1));
/// assert!(lease.is_valid());
/// lease.lose(LossReason::Disconnected);
/// lease.extend(sent + Duration::from_secs(60)); // too late
/// assert_eq!(lease.reason(), Some(LossReason::Disconnected));
/// ```
#[derive(Clone)]
pub struct Lease(Arc<Inner>);

struct Inner {
    latch: Latch,
    until: Option<Until>,
}

struct Until {
    clock: Arc<dyn Clock>,
    /// Nanoseconds on the clock.
    deadline: AtomicU64,
    /// In milliseconds: there is a lease for each lock.
    tick: u32,
    /// The [`LossReason`] that its end will be.
    ends_as: AtomicU8,
}

impl Lease {
    /// A lease without a deadline: the lock is ours until we release it or the backend says
    /// otherwise.
    #[must_use]
    pub fn unbounded() -> Self {
        Self(Arc::new(Inner {
            latch: Latch::new(),
            until: None,
        }))
    }

    /// A lease until `deadline` on `clock`. A task that waits for the loss looks at the clock every
    /// `tick` at least, since the runtime's timers stop while a machine sleeps.
    #[must_use]
    pub fn until(clock: Arc<dyn Clock>, deadline: Duration, tick: Duration) -> Self {
        Self(Arc::new(Inner {
            latch: Latch::new(),
            until: Some(Until {
                clock,
                deadline: AtomicU64::new(nanos(deadline)),
                tick: u32::try_from(tick.as_millis()).unwrap_or(u32::MAX).max(1),
                ends_as: AtomicU8::new(LossReason::Expired as u8),
            }),
        }))
    }

    /// Moves the deadline forward; a lease that has ended stays ended, and no deadline moves back.
    pub fn extend(&self, deadline: Duration) {
        if self.is_valid()
            && let Some(until) = &self.0.until
        {
            until.deadline.fetch_max(nanos(deadline), Ordering::AcqRel);
        }
    }

    /// Says why the lease will have ended where its deadline passes, in place of
    /// [`Expired`](LossReason::Expired): why it is not renewed.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) fn ends_as(&self, reason: LossReason) {
        if let Some(until) = &self.0.until {
            until.ends_as.store(reason as u8, Ordering::Relaxed);
        }
    }

    /// Ends the lease for good. The first reason stays.
    pub fn lose(&self, reason: LossReason) {
        self.0.latch.set(reason);
    }

    /// Whether the lease is valid now; false for good once it was false.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.reason().is_none()
    }

    /// Why the lease ended; `None` while it is valid.
    #[must_use]
    pub fn reason(&self) -> Option<LossReason> {
        if let Some(reason) = self.0.latch.get() {
            return Some(reason);
        }
        let until = self.0.until.as_ref()?;
        if until.remaining().is_zero() {
            let ends_as = LossReason::from_code(until.ends_as.load(Ordering::Relaxed));
            self.0.latch.set(ends_as.unwrap_or(LossReason::Expired));
        }
        self.0.latch.get()
    }

    /// Whether this is as good as a new [`unbounded`](Self::unbounded) one: never lost, and no task
    /// else has it or can get it.
    #[cfg(feature = "memory")]
    pub(crate) fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1 && self.0.until.is_none() && self.0.latch.get().is_none()
    }

    /// Whether the lease has ended, without telling those who wait for it: for backends that look
    /// under a lock of theirs.
    #[cfg(feature = "memory")]
    pub(crate) fn has_ended(&self) -> bool {
        self.0.latch.get().is_some() || self.remaining().is_some_and(|left| left.is_zero())
    }

    /// Time to the deadline; `None` without one.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        Some(self.0.until.as_ref()?.remaining())
    }

    /// Whether it is valid, and for a tick at least: one that is renewed is.
    pub(crate) fn is_lasting(&self) -> bool {
        let tick = self.0.until.as_ref().map(Until::tick);
        self.is_valid() && self.remaining() >= tick
    }

    /// How long a task that waits for the loss may sleep before the next look at the clock.
    pub(crate) fn next_look(&self) -> Option<Duration> {
        let until = self.0.until.as_ref()?;
        Some(until.remaining().min(until.tick()))
    }

    /// Ready once the lease has ended. Timers are the caller's: see [`next_look`](Self::next_look).
    pub(crate) fn poll_lost(
        &self,
        registration: &mut Registration,
        waker: &Waker,
    ) -> Poll<LossReason> {
        match self.reason() {
            Some(reason) => Poll::Ready(reason),
            None => self.0.latch.poll_set(registration, waker),
        }
    }

    pub(crate) fn unregister(&self, registration: &mut Registration) {
        self.0.latch.unregister(registration);
    }
}

impl Until {
    fn tick(&self) -> Duration {
        Duration::from_millis(self.tick.into())
    }

    fn remaining(&self) -> Duration {
        // The clock first: a deadline that is moved in between counts as moved.
        let now = nanos(self.clock.now());
        let deadline = self.deadline.load(Ordering::Acquire);
        Duration::from_nanos(deadline.saturating_sub(now))
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("reason", &self.reason())
            .field("remaining", &self.remaining())
            .finish()
    }
}

/// 584 years fit.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_at_its_deadline_and_never_comes_back() {
        let clock = Arc::new(TokioClock::new());
        let second = Duration::from_secs(1);
        let lease = Lease::until(clock.clone(), clock.now() + second, second / 3);
        lease.extend(clock.now() + 2 * second);
        lease.extend(clock.now() + second);
        tokio::time::advance(2 * second - Duration::from_millis(1)).await;
        assert!(lease.is_valid());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(lease.reason(), Some(LossReason::Expired));
        lease.extend(clock.now() + second);
        lease.lose(LossReason::Revoked);
        assert_eq!(lease.reason(), Some(LossReason::Expired));
    }

    #[cfg(any(feature = "postgres", feature = "redis"))]
    #[test]
    fn a_lease_that_is_not_renewed_says_why_once_it_has_ended() {
        let clock = Arc::new(BootClock);
        let lease = |ends_in| Lease::until(clock.clone(), clock.now() + ends_in, ends_in);
        let (over, valid) = (lease(Duration::ZERO), lease(Duration::from_secs(9)));
        for lease in [&over, &valid] {
            lease.ends_as(LossReason::ReadOnly);
        }
        assert_eq!(over.reason(), Some(LossReason::ReadOnly));
        assert_eq!(valid.reason(), None);
    }

    #[test]
    fn a_deadline_that_passed_unseen_cannot_be_moved() {
        let clock = Arc::new(BootClock);
        let lease = Lease::until(clock.clone(), Duration::ZERO, Duration::from_secs(1));
        lease.extend(clock.now() + Duration::from_secs(9));
        assert_eq!(lease.reason(), Some(LossReason::Expired));
    }
}
