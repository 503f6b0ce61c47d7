//! Who holds a lock, as its store knows.

#[cfg(feature = "postgres")]
use std::time::Duration;
use std::time::SystemTime;

use crate::instance::is_instance;

/// Who holds a lock; from [`LockProvider::holder`](crate::LockProvider::holder).
///
/// What was so when the store answered: the lock can be another's by the time that this is looked at. So
/// it is for people, and for finding the instance to ask, and decides nothing that the lock protects.
///
/// ```
/// # use std::time::Duration;
/// use lock_core::{LockError, LockMode, LockProvider, memory::MemoryBackend};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// let locks = LockProvider::new(MemoryBackend::new().with_instance("web-1:4711")?);
/// let guard = locks.acquire("job:cleanup-tokens", Duration::ZERO).await?;
///
/// let holder = locks.holder("job:cleanup-tokens").await?.expect("it is held");
/// assert_eq!(holder.instance(), Some("web-1:4711"));
/// assert_eq!(holder.mode(), LockMode::Exclusive);
/// # drop(guard);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    instance: Option<String>,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    mode: LockMode,
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LockMode {
    /// By one holder, beside which there is no other.
    Exclusive,
    /// Together with others that hold it so.
    Shared,
}

impl Holder {
    /// A holder of which nothing else is known. For [backends](crate::backend::Backend::holder).
    #[must_use]
    pub const fn new(mode: LockMode) -> Self {
        Self {
            instance: None,
            since: None,
            until: None,
            mode,
        }
    }

    /// With the instance, as the store has it. Text that no instance can be, since another program has
    /// written it, does not count.
    #[must_use]
    pub fn with_instance(mut self, instance: &str) -> Self {
        self.instance = is_instance(instance).then(|| instance.to_owned());
        self
    }

    /// With the time at which it was granted the lock, by the clock of this machine.
    #[must_use]
    pub const fn with_since(mut self, since: SystemTime) -> Self {
        self.since = Some(since);
        self
    }

    /// With the time at which the lock opens, which was released already, by the clock of this machine.
    #[must_use]
    pub const fn with_until(mut self, until: SystemTime) -> Self {
        self.until = Some(until);
        self
    }

    /// With the time from now on after which the lock opens, which was released already.
    #[cfg(feature = "postgres")]
    pub(crate) fn opening_after(self, now: SystemTime, left: Duration) -> Self {
        match now.checked_add(left) {
            Some(until) => self.with_until(until),
            None => self,
        }
    }

    /// Which instance holds it, or held it where the lock is [kept](Self::until): what its `LOCK_INSTANCE` says,
    /// by default `host:pid`. At most 46 printable ASCII characters without blanks; other text that is found in
    /// the store is not shown.
    ///
    /// `None` where the holder does not say: an older version of this library, or another program.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// Since when, by the clock of this machine and what the store says of how long that is ago. `None` where
    /// the store does not know: PostgreSQL.
    ///
    /// It is when the store granted the lock to that instance, whose tasks may have [handed it
    /// over](crate::LockProviderBuilder::local_handover) to each other since.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// When the lock opens that was released and is kept closed
    /// [at least so long](crate::LockPolicy::with_at_least); by the clock of this machine and what the store says of
    /// how long that takes. `None` for a lock that is held, and where the store does not know: the process of the
    /// holder keeps it then.
    #[must_use]
    pub fn until(&self) -> Option<SystemTime> {
        self.until
    }

    /// How it is held.
    #[must_use]
    pub fn mode(&self) -> LockMode {
        self.mode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_no_instance_can_be_is_not_shown() {
        let named = |text| Holder::new(LockMode::Exclusive).with_instance(text);
        assert_eq!(named("web-1:7").instance(), Some("web-1:7"));
        let long = "x".repeat(47);
        for wrong in ["", "a b", "a\nb", "\u{1b}[31m", &long] {
            assert_eq!(named(wrong).instance(), None, "{wrong:?}");
        }
    }
}
