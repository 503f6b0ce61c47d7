//! What goes into the next statement.

use std::ops::Bound::{Excluded, Unbounded};

use tokio::time::Instant;

use super::rows::{Batch, Row};
use crate::LockError;
use crate::backend::Attempt;
use crate::postgres::driver::{Driver, State};
use crate::postgres::errors;
use crate::postgres::held::{Hold, HoldCommand, PostgresGrant};
use crate::postgres::key::Keys;
use crate::postgres::session::{KeyWaiters, Session};
use crate::postgres::shared::Request;
use crate::postgres::sql::{self, Step};
use crate::server::Reply;

/// How many names a process registers for one by one; for more it registers for everything, so that
/// those who wait do not fill the lock table.
pub(super) const REGISTRATIONS: usize = 512;

impl Driver {
    /// Releases first, so that what they free can be granted to others; then those who have waited
    /// longest, then the new ones.
    pub(super) fn form_batch(&mut self, session: &Session) -> Batch {
        let mut batch = Batch::default();
        self.quiet_until.take_if(|until| *until <= Instant::now());
        for command in std::mem::take(&mut self.of_grants) {
            match command {
                HoldCommand::Release { hold, reply } => self.add_release(&mut batch, hold, reply),
                token @ HoldCommand::Token { .. } => self.of_grants.push(token),
            }
        }
        let (mut tries, mut reads) = (Vec::new(), Vec::new());
        for request in std::mem::take(&mut self.backlog) {
            match request {
                Request::Try { keys, reply } => tries.push((keys, reply)),
                Request::Read { keys, reply } => reads.push((keys, reply)),
                other => self.backlog.push(other),
            }
        }
        if batch.releases > 0 && self.quiet_until.is_none() {
            batch.push_wait(Step::TellEverybody, sql::EVERYTHING, Row::TellEverybody);
        }
        self.add_unregistrations(&mut batch);
        for keys in std::mem::take(&mut self.to_want) {
            self.want(&mut batch, keys);
        }
        // Where there is not room for both, they take turns.
        let callers_first = std::mem::take(&mut self.has_put_off);
        if !callers_first {
            self.add_due(&mut batch, session);
            self.add_due_readers(&mut batch, session);
        }
        for (keys, reply) in tries {
            self.add_try(&mut batch, session, keys, reply);
        }
        for (keys, reply) in reads {
            self.add_read(&mut batch, session, keys, reply);
        }
        if callers_first {
            self.add_due(&mut batch, session);
            self.add_due_readers(&mut batch, session);
        } else {
            self.has_put_off = batch.has_put_off;
        }
        batch
    }

    fn add_release(&mut self, batch: &mut Batch, hold: Hold, reply: Option<Reply<()>>) {
        if !self.is_held_by(hold) {
            reply.map(|reply| reply.send(Err(errors::not_ours())));
        } else if self.leave_readers(hold) {
            reply.map(|reply| reply.send(Ok(())));
        } else if batch.releases == sql::RELEASES {
            self.of_grants.push(HoldCommand::Release { hold, reply });
        } else {
            batch.releases += 1;
            self.keys.insert(hold.keys.lock, State::Releasing);
            let step = match (hold.is_shared, self.quiet_until) {
                (false, None) => Step::Release,
                (false, Some(_)) => Step::ReleaseQuietly,
                (true, None) => Step::ReleaseRead,
                (true, Some(_)) => Step::ReleaseReadQuietly,
            };
            batch.push(step, hold.keys, Row::Release(hold, reply));
        }
    }

    fn add_unregistrations(&mut self, batch: &mut Batch) {
        let mut left = self.shared.waiters.take_left();
        left.extend(self.shared.readers.take_left());
        for key in left {
            let writers_wait = self.shared.waiters.is_waited_for(&key);
            let readers_wait = self.shared.readers.is_waited_for(&key);
            if !writers_wait {
                self.due.remove(&key);
                self.want_no_more(batch, key);
            }
            if writers_wait || readers_wait {
                continue;
            }
            self.due_readers.remove(&key);
            if let Some(wait) = self.registered.remove(&key) {
                batch.push_wait(Step::Unregister, wait, Row::Unregister);
            }
        }
        if self.is_registered_for_everything && self.shared.is_empty() {
            self.is_registered_for_everything = false;
            batch.push_wait(Step::Unregister, sql::EVERYTHING, Row::Unregister);
        }
    }

    /// Tries for those who wait. What there is no room for stays due: the next batch goes on behind it, or
    /// the one after a release.
    fn add_due(&mut self, batch: &mut Batch, session: &Session) {
        let cap = self.cap(session);
        while let Some(key) = self.next_due() {
            let is_read = matches!(self.keys.get(&key), Some(State::Reading(_)));
            // Who only keeps readers out takes no room.
            if batch.is_full() || (!is_read && self.keys.len() >= cap) {
                return;
            }
            self.due.remove(&key);
            self.last_due = key;
            let Some(keys) = self.shared.waiters.about(&key) else {
                continue;
            };
            // When we hold it ourselves, its release makes it due again.
            match self.keys.get(&key) {
                None if self.handed_over.get(&key).is_none() => {
                    self.add_watched_try(batch, keys, Row::Watched(keys));
                }
                Some(State::Reading(_)) => self.want(batch, keys),
                _ => {}
            }
        }
    }

    /// The key to try next. They take turns: those that are due again and again, and refused, keep no
    /// other from its try.
    fn next_due(&self) -> Option<i64> {
        let mut behind = self.due.range((Excluded(self.last_due), Unbounded));
        behind.next().or_else(|| self.due.first()).copied()
    }

    fn add_try(
        &mut self,
        batch: &mut Batch,
        session: &Session,
        keys: Keys,
        reply: Reply<Attempt<PostgresGrant>>,
    ) {
        if reply.is_closed() {
            return;
        }
        match self.keys.get(&keys.lock) {
            Some(State::Releasing) => {
                // Its unlock is on the wire, or in this batch.
                self.backlog.push(Request::Try { keys, reply });
                return;
            }
            Some(State::Reading(_)) if self.shared.waiters.is_waited_for(&keys.lock) => {
                self.want(batch, keys);
                let _ = reply.send(Ok(Attempt::Held { retry_in: None }));
                return;
            }
            Some(State::Held(_) | State::Trying | State::Reading(_)) => {
                let _ = reply.send(Ok(Attempt::Held { retry_in: None }));
                return;
            }
            None => {}
        }
        let has_room = match self.has_room(batch, session) {
            Ok(has_room) => has_room,
            Err(full) => return drop(reply.send(Err(full))),
        };
        if !has_room {
            batch.has_put_off = true;
            self.backlog.push(Request::Try { keys, reply });
        } else if self.handed_over.get(&keys.lock).is_some() {
            self.push_try(batch, Step::TryPolitely, keys, Row::Try(keys, reply));
        } else if self.shared.waiters.is_waited_for(&keys.lock) {
            self.add_watched_try(batch, keys, Row::Try(keys, reply));
        } else {
            self.push_try(batch, Step::Try, keys, Row::Try(keys, reply));
        }
    }

    /// Whether a key can be tried in this batch, or in a later one.
    ///
    /// # Errors
    ///
    /// In none: this process holds as many locks as it may.
    pub(super) fn has_room(&self, batch: &Batch, session: &Session) -> Result<bool, LockError> {
        let cap = self.cap(session);
        // What is under way, all of it in this batch, leaves room or is held when that was answered.
        let held = self.keys.len() - batch.tries - batch.releases;
        match held >= cap {
            true => Err(errors::full(cap, held)),
            false => Ok(self.keys.len() < cap && !batch.is_full()),
        }
    }

    pub(super) fn push_try(&mut self, batch: &mut Batch, step: Step, keys: Keys, row: Row) {
        self.keys.insert(keys.lock, State::Trying);
        batch.tries += 1;
        batch.push(step, keys, row);
    }

    /// A try of a key that is waited for, registered where there is room.
    fn add_watched_try(&mut self, batch: &mut Batch, keys: Keys, row: Row) {
        let Keys { lock, wait, .. } = keys;
        batch.is_for_waiting = true;
        let step = if self.registered.contains_key(&lock) {
            Step::TryRegistered
        } else if self.has_room_to_register(batch) {
            // Counted now, so that one batch does not go over the limit.
            self.registered.insert(lock, wait);
            Step::RegisterAndTry
        } else {
            Step::Try
        };
        self.push_try(batch, step, keys, row);
    }

    /// Whether a name can be registered for by itself. Where not, the process registers for everything.
    pub(super) fn has_room_to_register(&mut self, batch: &mut Batch) -> bool {
        if self.registered.len() < REGISTRATIONS {
            return true;
        }
        if !self.is_registered_for_everything {
            self.is_registered_for_everything = true;
            let (step, row) = (Step::Register, Row::RegisterForEverything);
            batch.push_wait(step, sql::EVERYTHING, row);
        }
        false
    }
}
