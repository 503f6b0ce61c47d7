//! After a statement failed: what it did before that is found, and undone.
//!
//! Neither a lock nor an unlock is undone by the rollback of its statement, and its notifications are
//! lost. So the server is asked for all that this session holds, and what no live hold accounts for
//! is unlocked, until nothing is left: a key that was taken twice is there again after one unlock.

use std::collections::HashSet;

use super::{Driver, State};
use crate::backend::LossReason;
use crate::postgres::mark::Mark;
use crate::postgres::session::{Failed, Session, value};
use crate::postgres::sql;
use crate::postgres::statement::Statement;

/// More rounds than any lock was taken times, with some to spare for those that fail as well: a client that
/// cancels one statement often cancels the next.
const ROUNDS: usize = 32;

/// An advisory lock of the session, as the server says.
struct AuditedLock {
    key: i64,
    is_exclusive: bool,
    is_pair: bool,
}

impl Driver {
    /// Unlocks what no live hold accounts for, and notifies those that wait for it or for one of `told`;
    /// notifies none if that is `None`.
    ///
    /// An error is the end of the session, which unlocks everything.
    pub(super) async fn recover(
        &mut self,
        session: &mut Session,
        mut told: Option<Vec<i64>>,
    ) -> Result<(), Failed> {
        let held = self.keys_with(|state| matches!(state, State::Held(_)));
        let read = self.keys_with(|state| matches!(state, State::Reading(_)));
        for _ in 0..ROUNDS {
            let locks = match self.audit(session).await {
                Ok(locks) => locks,
                Err(Failed::Statement(_)) => continue,
                Err(lost) => return Err(lost),
            };
            let (exclusive, shared): (Vec<_>, Vec<_>) =
                locks.into_iter().partition(|lock| lock.is_exclusive);
            let known: HashSet<i64> = exclusive.iter().map(|lock| lock.key).collect();
            self.wanted.retain(|_, want| known.contains(want));
            let wanted: HashSet<i64> = self.wanted.values().copied().collect();
            // A pair is no stray of the bigint with its bits: while one is held the other is not tried.
            let (strays, pairs): (Vec<i64>, Vec<bool>) = exclusive
                .into_iter()
                .filter(|lock| !held.contains(&lock.key) && !wanted.contains(&lock.key))
                .map(|lock| (lock.key, lock.is_pair))
                .unzip();
            let shared: HashSet<i64> = shared.into_iter().map(|lock| lock.key).collect();
            let mut unknown = self.take_registrations(&shared);
            unknown.retain(|key| !read.contains(key));
            if strays.is_empty() && unknown.is_empty() {
                return self.tell(session, &told.unwrap_or_default()).await;
            }
            if let Some(told) = &mut told {
                // Of readers, too. That none waits for what were registrations costs nothing.
                told.extend(strays.iter().chain(&unknown));
            }
            let swept = session
                .run(
                    &*self.shared,
                    const { Statement::new(sql::SWEEP) },
                    |sweep| sweep.bind(&strays).bind(&unknown).bind(&pairs),
                )
                .await;
            // What it did not unlock is there in the next round.
            if let Err(Failed::Session(lost)) = swept {
                return Err(Failed::Session(lost));
            }
        }
        // What is held is not known any more: only a new session makes that right.
        Err(Failed::Session(LossReason::Revoked))
    }

    async fn audit(&self, session: &mut Session) -> Result<Vec<AuditedLock>, Failed> {
        let rows = session
            .run(
                &*self.shared,
                const { Statement::new(sql::AUDIT) },
                |audit| audit,
            )
            .await?;
        let lock = |row| {
            Ok(AuditedLock {
                key: value(row, 0)?,
                is_exclusive: value(row, 1)?,
                is_pair: value(row, 2)?,
            })
        };
        let locks = rows.iter().map(lock).collect::<Result<Vec<_>, _>>()?;
        // Our session holds that of its lease, always.
        let lease_key = self.config.target.terms.lease_key();
        if !(locks.iter()).any(|lock| lock.key == lease_key && !lock.is_exclusive) {
            return Err(Failed::Session(LossReason::Revoked));
        }
        Ok(locks)
    }

    /// Takes over what the server says of our registrations; gives those that no caller needs.
    fn take_registrations(&mut self, shared: &HashSet<i64>) -> Vec<i64> {
        self.registered.retain(|_, wait| shared.contains(wait));
        self.is_registered_for_everything = shared.contains(&sql::EVERYTHING);
        let known: HashSet<i64> = self.registered.values().copied().collect();
        let target = &self.config.target;
        let (lease_key, mark) = (
            target.terms.lease_key(),
            target.mark.as_ref().map(Mark::key),
        );
        let is_unknown = |key: &i64| {
            *key != sql::EVERYTHING
                && *key != lease_key
                && Some(*key) != mark
                && !known.contains(key)
        };
        shared.iter().copied().filter(is_unknown).collect()
    }

    /// Tells that keys were unlocked. Not taken in time, it is left to the fallback of those who
    /// wait.
    pub(super) async fn tell(&mut self, session: &mut Session, keys: &[i64]) -> Result<(), Failed> {
        for keys in keys.chunks(sql::RELEASES) {
            let payload: Vec<_> = keys.iter().map(|key| format!("{key:x}")).collect();
            let payload = payload.join(",");
            let told = session
                .run(&*self.shared, const { Statement::new(sql::TELL) }, |tell| {
                    tell.bind(&payload)
                })
                .await;
            match told {
                Ok(_) | Err(Failed::Statement(_)) => {}
                Err(lost) => return Err(lost),
            }
        }
        Ok(())
    }
}
