//! What the answers of a statement mean.

use tokio::time::Instant;

use super::rows::{Batch, Row};
use crate::LockError;
use crate::backend::Attempt;
use crate::outage::SoFar;
use crate::postgres::driver::{Driver, QUIET, State};
use crate::postgres::errors;
use crate::postgres::held::{Hold, PostgresGrant};
use crate::postgres::key::Keys;
use crate::postgres::session::Session;
use crate::postgres::sql::{Step, answer};
use crate::server::Reply;

/// How often a lock is left to those who wait for everything.
const FAIR_EVERY: u32 = 8;

/// What one caller is answered, and where. Dropped, a grant gives its lock back.
pub(super) enum Answered {
    Release(Reply<()>, Result<(), LockError>),
    Try(Reply<Attempt<PostgresGrant>>, Attempt<PostgresGrant>),
}

impl Answered {
    fn send(self) {
        // The caller may have left.
        match self {
            Self::Release(reply, released) => drop(reply.send(released)),
            Self::Try(reply, attempt) => drop(reply.send(Ok(attempt))),
        }
    }
}

impl Driver {
    pub(super) fn settle(&mut self, session: &Session, batch: Batch, answers: &[u8]) {
        let mut released = Vec::new();
        let mut has_told = false;
        let mut replies = Vec::with_capacity(batch.rows.len());
        for ((row, answer), step) in batch.rows.into_iter().zip(answers).zip(batch.steps) {
            if let Row::Release(hold, _) = &row {
                released.push(hold.keys.lock);
                has_told |= *answer == answer::AWAITED;
            }
            match row {
                Row::Release(hold, reply) => {
                    let released = self.settle_release(hold, *answer);
                    replies.extend(reply.map(|reply| Answered::Release(reply, released)));
                }
                Row::Try(keys, reply) => {
                    let attempt = self.settle_try(session, keys, step, *answer);
                    replies.push(Answered::Try(reply, attempt));
                }
                Row::Watched(keys) => {
                    let attempt = self.settle_try(session, keys, step, *answer);
                    if let Attempt::Granted(grant) = attempt {
                        drop(self.shared.waiters.park(&keys.lock, grant));
                    }
                }
                Row::Read(readers) => self.settle_read(session, readers, *answer, &mut replies),
                Row::RegisterReaders(key) if *answer == answer::HELD => {
                    self.registered.remove(&key);
                }
                // Another writer keeps readers out, or a reader has looked at that moment: the next refusal tries again.
                Row::Want(keys) if *answer == answer::HELD => {
                    self.wanted.remove(&keys.lock);
                }
                Row::Unwant(key) => self.settle_unwant(key),
                Row::RegisterForEverything => {
                    self.is_registered_for_everything = *answer == answer::REGISTERED;
                }
                Row::TellEverybody if *answer == answer::AWAITED => self.be_fair(&released),
                Row::Unregister | Row::TellEverybody | Row::RegisterReaders(_) | Row::Want(_) => {}
            }
        }
        // All in a row: a worker of the application that is woken for the first finds the others, and does
        // not sleep again between two of them.
        replies.into_iter().for_each(Answered::send);
        if has_told {
            self.quiet.over(|lasted| {
                tracing::info!(?lasted, "releases in PostgreSQL are notified again");
            });
        }
    }

    /// A session waits for more names than it registers, perhaps for one of these. For each of them to
    /// be left to it for a moment would slow down all; for none would starve it.
    fn be_fair(&mut self, released: &[i64]) {
        self.told_everybody = self.told_everybody.wrapping_add(1);
        if self.told_everybody.is_multiple_of(FAIR_EVERY) {
            let now = Instant::now();
            for key in released {
                self.due.remove(key);
                self.handed_over.begin(*key, (), now);
            }
        }
    }

    /// The server takes no notifications now: the next releases do without.
    pub(super) fn be_quiet(&mut self, error: &LockError) {
        let now = Instant::now();
        self.quiet.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                error = error as &dyn std::error::Error, failures, lasting,
                "cannot notify other processes of releases in PostgreSQL: their waiters poll a few times a second"
            );
        });
        self.quiet_until = Some(now + QUIET);
    }

    pub(super) fn settle_release(&mut self, hold: Hold, answer: u8) -> Result<(), LockError> {
        let key = hold.keys.lock;
        self.keys.remove(&key);
        if answer == answer::AWAITED {
            self.handed_over.begin(key, (), Instant::now());
        } else {
            self.make_due(key);
        }
        match answer {
            answer::NOT_OURS => Err(errors::not_ours()),
            _ => Ok(()),
        }
    }

    fn settle_try(
        &mut self,
        session: &Session,
        keys: Keys,
        step: i16,
        answer: u8,
    ) -> Attempt<PostgresGrant> {
        let key = keys.lock;
        if answer == answer::GRANTED {
            if step == Step::RegisterAndTry as i16 || step == Step::TryRegistered as i16 {
                self.registered.remove(&key);
            }
            return match self.grant(session, keys) {
                Some(grant) => Attempt::Granted(grant),
                None => Attempt::Held { retry_in: None },
            };
        }
        self.keys.remove(&key);
        self.was_refused = true;
        if matches!(answer, answer::READ | answer::REGISTERED_BESIDE_READERS) {
            self.to_want.push(keys);
        }
        // A session that checked for waiters at that moment kept us from registering: the fallback does it.
        if step == Step::RegisterAndTry as i16 && answer == answer::HELD {
            self.registered.remove(&key);
        }
        let handed_over = self.handed_over.get(&key);
        let retry_in =
            handed_over.map(|(until, ())| until.saturating_duration_since(Instant::now()));
        Attempt::Held { retry_in }
    }

    /// A grant of a key that the server has given us; `None` if no caller is left to have it, and then
    /// it goes with the session, which is about to end.
    pub(in crate::postgres::driver) fn grant(
        &mut self,
        session: &Session,
        keys: Keys,
    ) -> Option<PostgresGrant> {
        let hold = self.new_hold(keys, false);
        self.keys.insert(keys.lock, State::Held(hold.owner));
        let client = self.client.upgrade()?;
        Some(PostgresGrant::new(client, hold, session.lease.clone()))
    }
}
