//! Many locks at once: all of them, or as many as are free.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use super::acquire::{Acquire, Wait};
use super::exchange::{detach, settle};
use super::{LockProvider, Turn};
use crate::backend::{Granted, ManyCommand};
use crate::guard::seat;
use crate::observe::AcquireOutcome;
use crate::{LockError, LockGuard, LockGuards, LockName, LockPolicy};

impl LockProvider {
    /// Acquires all of these locks, or none. Duplicates count once.
    ///
    /// The locks are taken one after the other in the order of their names, in every process the
    /// same, so that two callers with the same names in different orders never wait for each other.
    /// The wait of the policy is for all together.
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
    pub async fn acquire_all<I>(
        &self,
        names: I,
        policy: impl Into<LockPolicy>,
    ) -> Result<LockGuards, LockError>
    where
        I: IntoIterator<Item: TryInto<LockName, Error: Into<LockError>>>,
    {
        let names = distinct(names)?;
        if names.is_empty() {
            return Err(LockError::invalid_name(
                "no names were given; give one at least",
            ));
        }
        let policy = policy.into();
        let wait = Wait::new(policy.get_wait(), self.shared.response_timeout);
        let group = self.shared.nesting.group();
        let mut guards = Vec::with_capacity(names.len());
        for name in names {
            guards.push(Acquire::within(self.clone(), name, wait, group).await?);
        }
        // Held for as long as all of them are.
        guards
            .iter()
            .for_each(|guard: &LockGuard| guard.limit(policy.get_max_hold()));
        // The first can have been lost while the last was waited for.
        guards.iter().try_for_each(LockGuard::check)?;
        Ok(LockGuards::new(guards))
    }

    /// Acquires those of these locks that are free right now, up to `limit`; the others are held
    /// by somebody, or somebody in this process waits for them. For workers that share a set of
    /// jobs.
    ///
    /// An answer can be ready at once. Who asks again and again lets others run all the same: the
    /// call takes part in the [cooperation](tokio::task::coop) of the runtime's tasks.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) and its like; nothing stays locked then.
    /// That no lock is free is no error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future releases what is granted.
    pub async fn claim<I>(&self, names: I, limit: usize) -> Result<Vec<LockGuard>, LockError>
    where
        I: IntoIterator<Item: TryInto<LockName, Error: Into<LockError>>>,
    {
        let names = distinct(names)?;
        let shared = &self.shared;
        // Before anything is taken: it may wait for others to run.
        consume_budget().await;
        if shared.queue.is_closed() {
            return Err(LockError::closed());
        }
        let wait = Wait::new(Duration::ZERO, shared.response_timeout);
        let (names, turns): (Vec<_>, Vec<_>) = names
            .into_iter()
            .filter_map(|name| shared.queue.try_enter(&name).map(|turn| (name, Some(turn))))
            .unzip();
        if names.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let command = shared.backend.begin_many(names.clone(), limit);
        let mut claim = Claim {
            command: Some(command),
            turns,
            response_timeout: shared.response_timeout,
        };
        let Ok(granted) = timeout(shared.response_timeout, claim.answer()).await else {
            return Err(LockError::unanswered());
        };
        let guards = granted?.into_iter().filter_map(|(position, granted)| {
            let turn = claim.turns[position].take()?;
            let keys = shared.observer.keys(names[position].label());
            keys.acquired(AcquireOutcome::Acquired, wait.waited());
            Some(LockGuard::new(seat(shared, keys, turn, granted)))
        });
        let guards = guards.collect();
        if shared.is_closing() {
            return Err(LockError::closed());
        }
        Ok(guards)
    }
}

/// The names, each once, in order.
fn distinct<I>(names: I) -> Result<BTreeSet<LockName>, LockError>
where
    I: IntoIterator<Item: TryInto<LockName, Error: Into<LockError>>>,
{
    names
        .into_iter()
        .map(|name| name.try_into().map_err(Into::into))
        .collect()
}

/// A command for many names, with their turns; as an `Exchange` it is asked to the end.
struct Claim {
    command: Option<ManyCommand>,
    turns: Vec<Option<Turn>>,
    response_timeout: Duration,
}

impl Claim {
    async fn answer(&mut self) -> Result<Vec<(usize, Granted)>, LockError> {
        let Some(command) = &mut self.command else {
            return Ok(Vec::new());
        };
        let answer = command.await;
        self.command = None;
        answer
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(command) = self.command.take() else {
            return;
        };
        let response_timeout = self.response_timeout;
        let mut turns = std::mem::take(&mut self.turns);
        detach(async move {
            for (position, granted) in command.await.unwrap_or_default() {
                if let Some(turn) = turns.get_mut(position).and_then(Option::take) {
                    detach(settle(turn, granted, response_timeout));
                }
            }
        });
    }
}
