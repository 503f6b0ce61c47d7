//! A lock, before it is held.

use std::fmt;
use std::future::{Future, poll_fn};
use std::task::Poll;

use crate::permits::Permits;
use crate::terms::Terms;
use crate::{Acquire, Holder, LockError, LockGuard, LockName, LockPolicy, LockProvider};

/// A lock by its name, not held yet. From [`LockProvider::lock`].
///
/// It is not re-entrant: a task that holds the lock and acquires it again waits like any other
/// caller.
///
/// For one acquire [`LockProvider::acquire`] is shorter; this is for a lock that is kept.
///
/// ```
/// use std::time::Duration;
/// use lock_core::{DistributedLock, LockError, LockProvider, memory::MemoryBackend};
///
/// struct Reports {
///     rebuild: DistributedLock,
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// let locks = LockProvider::new(MemoryBackend::new());
/// let reports = Reports { rebuild: locks.lock("report:rebuild:all")? };
/// for _day in 0..3 {
///     let guard = reports.rebuild.acquire(Duration::from_secs(5)).await?;
///     guard.protect(async { /* rebuild */ }).await?;
///     guard.release().await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a lock does nothing until it is acquired"]
pub struct DistributedLock {
    provider: LockProvider,
    name: LockName,
    terms: Terms,
}

impl DistributedLock {
    pub(crate) fn new(provider: LockProvider, name: LockName) -> Self {
        Self {
            provider,
            name,
            terms: Terms::EXCLUSIVE,
        }
    }

    /// The same lock with so many permits: at most `number` hold it at a time, in all processes together.
    ///
    /// For what is scarce but not alone: exports that a database can bear, calls that a partner allows, jobs
    /// of one tenant.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let exports = locks.lock("export:run:acme")?.permits(2);
    /// let one = exports.acquire(Duration::from_secs(5)).await?;
    /// let other = exports.acquire(Duration::from_secs(5)).await?;
    /// assert!(exports.try_acquire(Duration::ZERO).await?.is_none());
    /// one.release().await?;
    /// assert!(exports.try_acquire(Duration::ZERO).await?.is_some());
    /// # other.release().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Slots
    ///
    /// Each permit is a slot, and each slot is an exclusive lock with a lease, a loss and fencing tokens of its
    /// own, in any backend: a holder that crashes gives its permit back as it would give back a lock. Slot 3 of
    /// `export:run:acme` is the lock `export:run:acme#3`. That is what [`LockGuard::name`] says and what the
    /// store has; no other name can be it. Metrics, logs and errors show the label of `export:run:acme`.
    ///
    /// Tokens grow from holder to holder of one slot and say nothing about the holders of another: let the
    /// storage compare those of one slot, by the guard's name.
    ///
    /// - A permit does not exclude the lock of the same name without permits, which is another lock; nor does
    ///   one of a single permit, `permits(1)`, which is the lock of slot 1.
    /// - [`LockProvider::holder`] of `export:run:acme` asks for the lock without permits. Ask for a
    ///   [slot](Self::slots), or for any of them by [`holder`](Self::holder).
    /// - Give every process the same number. One with a smaller number sees the first slots alone: it may wait
    ///   while a slot is free that it does not know of, and never are there more holders than the greatest
    ///   number says.
    ///
    /// # Waiting
    ///
    /// Waiters of one process and one number are served in the order of their calls, by whichever slot is free
    /// first. The first of them alone asks the store, for each slot once: a thousand waiters cost the store no
    /// more than one.
    ///
    /// A try that does not wait is behind them: it is refused while the first of them waits. Where several slots are
    /// freed together, a waiter that is woken for each of them can have them all for some milliseconds, until it has
    /// chosen one; a try elsewhere finds none free then.
    ///
    /// # Errors
    ///
    /// None here; with zero, or more than 256, each acquire is
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured), and nothing is asked of the store. With a wait of
    /// zero the lock is contended when each slot is known to be held;
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when none is free and the store did not answer for
    /// one.
    pub fn permits(mut self, number: usize) -> Self {
        self.terms = self.terms.with_permits(Permits::new(number));
        self
    }

    /// The same lock for readers: any number of them hold it together, in all processes, and none of them
    /// while another caller holds it without `shared`, which is called the writer.
    ///
    /// For what many look at and few change: a catalogue that requests read and an import replaces, a schema
    /// that jobs rely on and a migration alters.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let write = locks.lock("catalog:read:7")?;
    /// let read = write.clone().shared();
    ///
    /// let one = read.acquire(Duration::from_secs(5)).await?;
    /// let other = read.acquire(Duration::from_secs(5)).await?;
    /// assert!(write.try_acquire(Duration::ZERO).await?.is_none());
    ///
    /// one.release().await?;
    /// other.release().await?;
    /// let import = write.acquire(Duration::from_secs(5)).await?;
    /// assert!(read.try_acquire(Duration::ZERO).await?.is_none());
    /// # import.release().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// Each reader has a lease and a loss of its own: one that crashes, or loses its lock, leaves the others as
    /// they are.
    ///
    /// # Waiting
    ///
    /// A writer that waits keeps new readers out, in all processes, so that readers that come and go do not starve
    /// it; it is granted the lock when the last reader that held it has released it. If it gives up, the readers
    /// go on. Callers of one process are served in the order of their calls, readers that follow each other
    /// together.
    ///
    /// A try that does not wait is granted the lock for a reader unless a writer holds it or waits for it.
    ///
    /// A reader does not become a writer: release the lock, acquire it without `shared`, and look again at what
    /// was read, since another writer may have been first. A task that reads, and reads the same lock again
    /// before it has released it, waits for itself where a writer came in between.
    ///
    /// # Tokens
    ///
    /// Tokens order writers, so that [`fencing_token`](LockGuard::fencing_token) of a reader is
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured). Those of writers grow across the readers between
    /// them.
    ///
    /// # Errors
    ///
    /// None here; each acquire is [`Misconfigured`](crate::LockErrorKind::Misconfigured), and nothing is asked of
    /// the store, where the backend [has no readers](crate::backend::Backend::SHARED), together with
    /// [`permits`](Self::permits), and under a policy with [`at_least`](LockPolicy::with_at_least).
    pub fn shared(mut self) -> Self {
        self.terms = self.terms.shared();
        self
    }

    /// The name of the lock.
    #[must_use]
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// The names of the slots of a lock with [`permits`](Self::permits), in the order of their numbers; none of
    /// another. For operators who look at the store.
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let exports = locks.lock("export:run:acme")?.permits(2);
    /// let slots: Vec<_> = exports.slots().map(|slot| slot.to_string()).collect();
    /// assert_eq!(slots, ["export:run:acme#1", "export:run:acme#2"]);
    /// # Ok::<(), LockError>(())
    /// ```
    pub fn slots(&self) -> impl Iterator<Item = LockName> {
        let number = self
            .terms
            .permits()
            .and_then(|permits| permits.check().ok());
        (1..=number.unwrap_or_default()).map(|slot| self.name.slot(slot))
    }

    /// Asks the store who holds the lock, as [`LockProvider::holder`] does; of the holders of a lock with
    /// [permits](Self::permits) any, and `None` when all of its slots are free.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let exports = locks.lock("export:run:acme")?.permits(2);
    /// assert!(exports.holder().await?.is_none());
    /// let _one = exports.acquire(Duration::ZERO).await?;
    /// let holder = exports.holder().await?.expect("a slot is held");
    /// println!("at least {:?} exports", holder.instance());
    /// # Ok(()) }
    /// ```
    ///
    /// One slot of chance is asked for, and where it is not held all others together. A slot that is held is named
    /// before those that are [kept](Holder::until), and of these the one that opens first.
    ///
    /// # Errors
    ///
    /// As [`LockProvider::holder`]; [`Misconfigured`](crate::LockErrorKind::Misconfigured) also when there cannot be so
    /// many permits.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    ///
    /// # Panics
    ///
    /// As [`LockProvider::holder`].
    pub async fn holder(&self) -> Result<Option<Holder>, LockError> {
        let Some(permits) = self.terms.permits() else {
            return self.provider.holder(self.name.clone()).await;
        };
        let number = permits
            .check()
            .map_err(|error| error.with_lock(&self.name))?;
        let first = fastrand::usize(..number);
        let ask = |place| {
            let slot = self.name.slot(1 + (first + place) % number);
            self.provider.holder(slot)
        };
        // Of a lock that is refused the first is held, as a rule.
        let first = ask(0).await?;
        if first.as_ref().is_some_and(|first| first.until().is_none()) {
            return Ok(first);
        }
        let mut asked: Vec<_> = (1..number).map(|place| Box::pin(ask(place))).collect();
        let (mut kept, mut unknown) = (first, None);
        let held = poll_fn(|cx| {
            let mut held = None;
            asked.retain_mut(|question| {
                let Poll::Ready(answer) = question.as_mut().poll(cx) else {
                    return true;
                };
                match answer {
                    Ok(None) => {}
                    Ok(Some(holder)) if holder.until().is_none() => held = Some(holder),
                    Ok(Some(holder)) => {
                        kept = (kept.take().into_iter().chain([holder])).min_by_key(Holder::until);
                    }
                    Err(error) => unknown = unknown.take().or(Some(error)),
                }
                false
            });
            match held.is_some() || asked.is_empty() {
                true => Poll::Ready(held),
                false => Poll::Pending,
            }
        });
        match (held.await.or(kept), unknown) {
            (None, Some(error)) => Err(error),
            (holder, _) => Ok(holder),
        }
    }

    /// Acquires the lock, or returns `None` when another held it for the whole wait.
    ///
    /// **Unlike the `try_` functions of `std` and `tokio::sync`, it waits for as long as `policy` says.**
    /// `try_` means that contention is a value here, and not an error. A bare
    /// [`Duration`](std::time::Duration) is how long to wait; with zero it tries once and does not wait.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let lock = locks.lock("job:cleanup-tokens")?;
    /// let guard = lock.try_acquire(Duration::from_secs(5)).await?;
    /// assert!(guard.is_some());
    /// assert!(lock.try_acquire(Duration::ZERO).await?.is_none()); // immediately
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the backend did not answer: whether
    /// the lock is free is not known. [`Closed`](crate::LockErrorKind::Closed) after a shutdown.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe at every await point: the place in line is given up, and a lock that is granted
    /// after that goes to the next in line or back.
    ///
    /// # Panics
    ///
    /// Where it has to wait, for the holder or for the backend's answer, when it is polled outside a
    /// tokio runtime with its timers enabled. (A lock in memory that is free is acquired anywhere.)
    pub async fn try_acquire(
        &self,
        policy: impl Into<LockPolicy>,
    ) -> Result<Option<LockGuard>, LockError> {
        match self.acquire_owned(policy).await {
            Ok(guard) => Ok(Some(guard)),
            Err(error) if error.is_contended() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Acquires the lock; that another held it for the whole wait is an error.
    ///
    /// # Errors
    ///
    /// [`Contended`](crate::LockErrorKind::Contended) when another held the lock for the whole wait,
    /// else as [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    ///
    /// As [`try_acquire`](Self::try_acquire).
    ///
    /// # Panics
    ///
    /// As [`try_acquire`](Self::try_acquire).
    pub async fn acquire(&self, policy: impl Into<LockPolicy>) -> Result<LockGuard, LockError> {
        self.acquire_owned(policy).await
    }

    /// As [`acquire`](Self::acquire), as a future with a name, for hand-written futures: it borrows
    /// nothing, is `Unpin`, and allocates nothing when the lock is granted immediately.
    ///
    /// # Cancel safety
    ///
    /// As [`try_acquire`](Self::try_acquire).
    ///
    /// # Panics
    ///
    /// As [`try_acquire`](Self::try_acquire), when it is polled.
    pub fn acquire_owned(&self, policy: impl Into<LockPolicy>) -> Acquire {
        let (provider, name) = (self.provider.clone(), self.name.clone());
        Acquire::new(provider, name, self.terms, policy.into())
    }

    /// Acquires the lock, runs `work` as long as the lock is ours, and releases it. A release that
    /// fails after the work was done is logged and counted: the result of the work stays.
    ///
    /// `work` is a future, not a closure. Work that needs the guard, for its token, takes the steps by
    /// hand: [`acquire`](Self::acquire), [`LockGuard::protect`], [`LockGuard::release`].
    ///
    /// ```
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// let locks = LockProvider::new(MemoryBackend::new());
    /// let lock = locks.lock("report:rebuild:2026")?;
    /// let pages = lock.run(LockPolicy::long_operation(), async { 12 }).await?;
    /// # assert_eq!(pages, 12);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and then `work` was not run;
    /// [`Lost`](crate::LockErrorKind::Lost) when the lock was lost before `work` was done.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `work` and releases the lock.
    ///
    /// # Panics
    ///
    /// As [`try_acquire`](Self::try_acquire) and [`LockGuard::protect`].
    pub async fn run<F: Future>(
        &self,
        policy: impl Into<LockPolicy>,
        work: F,
    ) -> Result<F::Output, LockError> {
        let guard = self.acquire_owned(policy).await?;
        let output = guard.protect(work).await?;
        guard.settle().await;
        Ok(output)
    }

    /// As [`run`](Self::run), for work that returns a `Result`: what goes wrong with the lock becomes an
    /// error of the work's type, so that there is one `Result` and one `?`. The lock is released as well
    /// when the work fails.
    ///
    /// ```
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// #[derive(Debug)]
    /// enum ReportError {
    ///     Lock(LockError),
    ///     Empty,
    /// }
    ///
    /// impl From<LockError> for ReportError {
    ///     fn from(error: LockError) -> Self {
    ///         Self::Lock(error)
    ///     }
    /// }
    ///
    /// async fn rebuild() -> Result<u32, ReportError> {
    ///     Err(ReportError::Empty)
    /// }
    ///
    /// let lock = locks.lock("report:rebuild:2026")?;
    /// let rebuilt = lock.try_run(LockPolicy::long_operation(), rebuild()).await;
    /// assert!(matches!(rebuilt, Err(ReportError::Empty)));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run), converted, and those of `work`.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `work` and releases the lock.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    pub async fn try_run<F, T, E>(&self, policy: impl Into<LockPolicy>, work: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<LockError>,
    {
        self.run(policy, work).await?
    }
}

impl fmt::Debug for DistributedLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributedLock")
            .field("lock", &self.name.label())
            .field("permits", &self.terms.permits())
            .field("mode", &self.terms.mode())
            .finish_non_exhaustive()
    }
}
