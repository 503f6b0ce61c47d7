//! Many locks together: all of them, or as many as are free.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tokio::task::coop::consume_budget;
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::acquire::{Acquire, Caller, Waiting, request, watched};
use super::claim::Claim;
use super::exchange::{detach, settle};
use super::wait::{Wait, answer};
use super::{LockProvider, Shared, Turn};
use crate::backend::LockRequest;
use crate::guard::seat;
use crate::nesting::Group;
use crate::observe::AcquireOutcome;
use crate::{LockError, LockGuard, LockGuards, LockMode, LockName, LockPolicy, trace};

/// How many locks of an `acquire_all` are asked for in one question, at most. It begins with one, and
/// doubles while all are free: where many are held, few are taken only to be given back.
const AT_ONCE: usize = 512;

impl LockProvider {
    /// Acquires all of these locks, or none. Duplicates count once.
    ///
    /// The locks are taken in the order of their names, in every process the same, so that two callers
    /// with the same names in different orders never wait for each other. Many that are free take few
    /// questions to the backend. The wait of the policy is for all together.
    ///
    /// ```
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// let locks = LockProvider::new(MemoryBackend::new());
    /// let (from, to) = (7, 3);
    /// let accounts = [from, to].map(|account| format!("account:transfer:{account}"));
    /// let guards = locks.acquire_all(accounts, LockPolicy::user_request()).await?;
    /// guards.protect(async { /* move the money */ }).await?;
    /// guards.release().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The first error, which names its [`lock`](LockError::lock); what had been acquired is
    /// released. [`InvalidName`](crate::LockErrorKind::InvalidName) without any name: work under no
    /// lock at all is not what was meant.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future releases what had been acquired.
    ///
    /// # Panics
    ///
    /// As [`DistributedLock::try_acquire`](crate::DistributedLock::try_acquire).
    pub async fn acquire_all<I>(
        &self,
        names: I,
        policy: impl Into<LockPolicy>,
    ) -> Result<LockGuards, LockError>
    where
        I: IntoIterator<Item: TryInto<LockName, Error: Into<LockError>>>,
    {
        let names = distinct(names);
        consume_budget().await;
        let names = names?;
        if names.is_empty() {
            return Err(LockError::invalid_name(
                "no names were given; give one at least",
            ));
        }
        let policy = policy.into();
        policy.check()?;
        let wait = Wait::new(policy, self.shared.response_timeout);
        let group = self.shared.nesting.group();
        let mut guards = Vec::with_capacity(names.len());
        let mut at_once = 1;
        while let Some(rest) = names.get(guards.len()..).filter(|rest| !rest.is_empty()) {
            let next = &rest[..at_once.min(rest.len())];
            if next.len() > 1 {
                let had = self.try_in_order(next, wait, policy, group).await?;
                let is_all = had.len() == next.len();
                guards.extend(had);
                if is_all {
                    at_once = (2 * at_once).min(AT_ONCE);
                    continue;
                }
            }
            // The first that is not free is waited for in its line, with those before it and no other.
            let first = names[guards.len()].clone();
            guards.push(Acquire::within(self.clone(), first, wait, policy, group).await?);
            at_once = 2;
        }
        // The first can have been lost while the last was waited for.
        guards.iter().try_for_each(LockGuard::check)?;
        // The time to hold them begins when there are all; a part of them is not kept for a caller that never had all.
        guards
            .iter()
            .for_each(|guard: &LockGuard| guard.follow(&policy));
        Ok(LockGuards::new(guards))
    }

    /// Acquires those of these locks that are free right now, up to `limit`; the others are held,
    /// or awaited by another task of this process. For workers that share a set of
    /// jobs.
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// let locks = LockProvider::new(MemoryBackend::new());
    /// let jobs = ["mail:send:1", "mail:send:2", "mail:send:3", "mail:send:4"];
    /// let mine = locks.claim(jobs, 3).await?;
    /// let theirs = locks.claim(jobs, 3).await?; // of another worker: what is left
    /// assert_eq!((mine.len(), theirs.len()), (3, 1));
    /// for guard in mine {
    ///     guard.protect(async { /* send the mail of `guard.name()` */ }).await?;
    ///     guard.release().await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// As every call here whose answer can be ready immediately, it takes part in the
    /// [cooperation](tokio::task::coop) of the runtime's tasks: a loop of claims lets others run.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) and its like; nothing stays locked then.
    /// That no lock is free is no error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future releases what is granted.
    ///
    /// # Panics
    ///
    /// When it is polled outside a tokio runtime with its timers enabled.
    pub async fn claim<I>(&self, names: I, limit: usize) -> Result<Vec<LockGuard>, LockError>
    where
        I: IntoIterator<Item: TryInto<LockName, Error: Into<LockError>>>,
    {
        let names = distinct(names);
        // Before anything is taken: it may wait for others to run.
        consume_budget().await;
        let names = names?;
        let wait = Wait::new(LockPolicy::background_job(), self.shared.response_timeout);
        let span = trace::claiming(self.backend(), names.len(), limit);
        let mut report = Report::new(&self.shared, &names, wait, span);
        let claimed = self.claim_free(&names, limit, &report).await;
        report.conclude(&claimed);
        claimed
    }

    async fn claim_free(
        &self,
        names: &[LockName],
        limit: usize,
        report: &Report<'_>,
    ) -> Result<Vec<LockGuard>, LockError> {
        let shared = &self.shared;
        if shared.queue.is_closed() {
            return Err(LockError::closed());
        }
        let (names, turns): (Vec<_>, Vec<_>) = names
            .iter()
            .filter_map(|name| Some((name.clone(), enter(shared, name)?)))
            .unzip();
        if names.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let asked = std::time::Instant::now();
        let requests = names.iter().cloned().map(LockRequest::new).collect();
        let mut claim = Claim::begin(shared, requests, turns, limit);
        let answer = timeout(shared.response_timeout, claim.answer());
        let Ok(granted) = answer.instrument(report.span.clone()).await else {
            return Err(LockError::unanswered_since(asked, shared.response_timeout));
        };
        // What ended on its way here goes back.
        let fresh = granted?
            .into_iter()
            .filter(|(_, granted)| granted.is_fresh());
        let guards = fresh.filter_map(|(position, granted)| {
            let turn = claim.turns[position].take()?;
            let keys = shared.observer.keys(names[position].label());
            let guard = LockGuard::new(seat(shared, Arc::clone(&keys), turn, granted));
            Some((keys, guard))
        });
        let guards: Vec<_> = guards.collect();
        if shared.is_closing() {
            return Err(LockError::closed());
        }
        let waited = report.wait.waited();
        let counted = guards.into_iter().map(|(keys, guard)| {
            keys.acquired(AcquireOutcome::Acquired, waited);
            guard
        });
        Ok(counted.collect())
    }

    /// Tries these names, which are in order, in one question; gives the guards of the first that are
    /// free, up to one that is not or that another task of this process is in line for.
    ///
    /// # Why callers do not wait for each other
    ///
    /// A question waits for no holder: it is answered or given up. What it was granted behind the first
    /// that is not free is given back by tasks of their own, which wait for no other either, so that a caller that
    /// waits keeps only locks before the one that it waits for. No caller is overtaken: a name that another is in line for
    /// is not asked for here, and who gets in line meanwhile is called when our turn ends.
    async fn try_in_order(
        &self,
        names: &[LockName],
        wait: Wait,
        policy: LockPolicy,
        group: Group,
    ) -> Result<Vec<LockGuard>, LockError> {
        let shared = &self.shared;
        let turns: Vec<_> = (names.iter())
            .map_while(|name| enter(shared, name))
            .collect();
        let names = &names[..turns.len()];
        let Some(first) = names.first() else {
            return Ok(Vec::new());
        };
        let mut report = Report::new(shared, names, wait, Span::none());
        let requests = names.iter().cloned().map(|name| request(name, &policy));
        let mut claim = Claim::begin(shared, requests.collect(), turns, names.len());
        let mut granted = match answer(shared, &wait, claim.answer()).await {
            Ok(Ok(granted)) => granted,
            // A caller of the first alone tries again, or learns of which lock this is true.
            Ok(Err(error)) if !error.is_closed() => Vec::new(),
            Ok(Err(error)) | Err(error) => {
                report.fail(error.kind().into());
                return Err(error.with_lock(first).with_waited(wait.waited()));
            }
        };
        // From here on each tells of itself.
        report.is_concluded = true;
        granted.sort_unstable_by_key(|(position, _)| *position);
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let mut guards = Vec::with_capacity(granted.len());
        for (position, granted) in granted {
            let Some(turn) = claim.turns[position].take() else {
                continue;
            };
            if position > guards.len() || !granted.is_fresh() {
                // Behind one that is not free, or over before it came.
                detach(settle(granted, turn, shared.response_timeout));
                continue;
            }
            let (shared, name) = (Arc::clone(shared), names[position].clone());
            let waiting = Waiting::Within(wait, policy, group);
            let mut caller = Caller::new(shared, name, LockMode::Exclusive, waiting, &waker);
            guards.push(caller.conclude(Ok((turn, granted)))?);
        }
        Ok(guards)
    }
}

/// The turn of this name, if no task here is in line or holds the lock.
fn enter(shared: &Shared, name: &LockName) -> Option<Turn> {
    (shared.queue.try_enter(name))
        .map_err(|holder| holder.and_then(watched))
        .ok()
}

/// The names, each once, in order.
fn distinct<I>(names: I) -> Result<Vec<LockName>, LockError>
where
    I: IntoIterator<Item: TryInto<LockName, Error: Into<LockError>>>,
{
    let names = names.into_iter().map(TryInto::try_into);
    let names: BTreeSet<_> = names.collect::<Result<_, _>>().map_err(Into::into)?;
    Ok(names.into_iter().collect())
}

/// What metrics and traces say of one question for many names. Dropped before it has concluded, it was
/// cancelled.
struct Report<'a> {
    shared: &'a Shared,
    names: &'a [LockName],
    wait: Wait,
    span: Span,
    is_concluded: bool,
}

impl<'a> Report<'a> {
    fn new(shared: &'a Shared, names: &'a [LockName], wait: Wait, span: Span) -> Self {
        Self {
            shared,
            names,
            wait,
            span,
            is_concluded: false,
        }
    }

    fn conclude(&mut self, claimed: &Result<Vec<LockGuard>, LockError>) {
        match claimed {
            Ok(guards) => {
                self.is_concluded = true;
                self.span.record("granted", guards.len());
                let outcome = if guards.is_empty() {
                    AcquireOutcome::Contended
                } else {
                    AcquireOutcome::Acquired
                };
                trace::acquired(&self.span, outcome.as_str(), self.wait.waited());
            }
            Err(error) => self.fail(error.kind().into()),
        }
    }

    /// Nothing was granted: it is not known of which name this is true.
    fn fail(&mut self, outcome: AcquireOutcome) {
        self.is_concluded = true;
        let waited = self.wait.waited();
        let labels: BTreeSet<_> = self.names.iter().map(LockName::label).collect();
        for label in labels {
            self.shared.observer.keys(label).acquired(outcome, waited);
        }
        trace::acquired(&self.span, outcome.as_str(), waited);
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if !self.is_concluded {
            self.fail(AcquireOutcome::Cancelled);
        }
    }
}
