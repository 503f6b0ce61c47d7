//! The statement that carries most commands: releases, registrations, tries.

use std::ops::Bound::{Excluded, Unbounded};

use sqlx::Error;
use tokio::time::Instant;

use super::{Driver, QUIET, State};
use crate::LockError;
use crate::backend::{Attempt, LossReason};
use crate::outage::SoFar;
use crate::postgres::errors;
use crate::postgres::held::{Hold, HoldCommand, PostgresGrant};
use crate::postgres::key::Keys;
use crate::postgres::session::{Failed, Session, value};
use crate::postgres::shared::Request;
use crate::postgres::sql::{self, Step, answer};
use crate::postgres::statement::{Bound, Statement};
use crate::server::Reply;

/// How many rows one statement has at most.
const ROWS: usize = 4_096;

/// How many names a process registers for one by one; for more it registers for everything, so that
/// those who wait do not fill the lock table.
const REGISTRATIONS: usize = 512;

/// How often a lock is left to those who wait for everything.
const FAIR_EVERY: u32 = 8;

/// Rows of one statement, and what is to be done with the answer of each. A key is in it once.
#[derive(Default)]
struct Batch {
    steps: Vec<i16>,
    locks: Vec<i64>,
    waits: Vec<i64>,
    /// Which of the locks are pairs.
    pairs: Vec<bool>,
    has_pairs: bool,
    rows: Vec<Row>,
    releases: usize,
    tries: usize,
    /// Whether it has a try of a waiter, who waits on if it is refused.
    is_for_waiting: bool,
    /// Whether there was no room for the try of a caller.
    has_put_off: bool,
}

enum Row {
    Release(Hold, Option<Reply<()>>),
    Try(Keys, Reply<Attempt<PostgresGrant>>),
    /// For a waiter.
    Watched(Keys),
    Unregister,
    RegisterForEverything,
    TellEverybody,
}

/// What one caller is answered, and where. Dropped, a grant gives its lock back.
enum Answered {
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

impl Batch {
    fn push(&mut self, step: Step, keys: Keys, row: Row) {
        self.steps.push(step as i16);
        self.locks.push(keys.lock);
        self.waits.push(keys.wait);
        self.pairs.push(keys.is_pair);
        self.has_pairs |= keys.is_pair;
        self.rows.push(row);
    }

    /// A step that has to do with the key of waiters alone.
    fn push_wait(&mut self, step: Step, wait: i64, row: Row) {
        let (lock, is_pair) = (0, false);
        self.push(
            step,
            Keys {
                lock,
                is_pair,
                wait,
            },
            row,
        );
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= ROWS
    }
}

impl Driver {
    /// Sends what can go together. Tells whether there was something.
    pub(super) async fn run_batch(&mut self, session: &mut Session) -> Result<bool, Failed> {
        let batch = self.form_batch(session);
        if batch.rows.is_empty() {
            return Ok(false);
        }
        if batch.is_for_waiting
            && let Err(lost) = self.hear(session).await
        {
            self.put_back(batch);
            return Err(lost);
        }
        let form = batch.form();
        let rows = session
            .run(&*self.shared.waiters, form.statement(), |query| {
                batch.bind(form, query)
            })
            .await;
        let answers =
            rows.and_then(|rows| rows.first().map_or(Ok(String::new()), |row| value(row, 0)));
        match answers {
            Ok(answers) if answers.len() == batch.rows.len() => {
                self.settle(session, batch, answers.as_bytes());
                Ok(true)
            }
            Ok(_) => {
                self.put_back(batch);
                Err(Failed::Session(LossReason::Disconnected))
            }
            Err(Failed::Statement(error)) => {
                self.batch_failed(session, batch, error).await?;
                Ok(true)
            }
            Err(lost) => {
                self.put_back(batch);
                Err(lost)
            }
        }
    }

    /// Releases first, so that what they free can be granted to others; then those who have waited
    /// longest, then the new ones.
    fn form_batch(&mut self, session: &Session) -> Batch {
        let mut batch = Batch::default();
        self.quiet_until.take_if(|until| *until <= Instant::now());
        for command in std::mem::take(&mut self.of_grants) {
            match command {
                HoldCommand::Release { hold, reply } => self.add_release(&mut batch, hold, reply),
                token @ HoldCommand::Token { .. } => self.of_grants.push(token),
            }
        }
        let mut tries = Vec::new();
        for request in std::mem::take(&mut self.backlog) {
            match request {
                Request::Try { keys, reply } => tries.push((keys, reply)),
                other => self.backlog.push(other),
            }
        }
        if batch.releases > 0 && self.quiet_until.is_none() {
            batch.push_wait(Step::TellEverybody, sql::EVERYTHING, Row::TellEverybody);
        }
        self.add_unregistrations(&mut batch);
        // Where there is not room for both, they take turns.
        let callers_first = std::mem::take(&mut self.has_put_off);
        if !callers_first {
            self.add_due(&mut batch, session);
        }
        for (keys, reply) in tries {
            self.add_try(&mut batch, session, keys, reply);
        }
        if callers_first {
            self.add_due(&mut batch, session);
        } else {
            self.has_put_off = batch.has_put_off;
        }
        batch
    }

    fn add_release(&mut self, batch: &mut Batch, hold: Hold, reply: Option<Reply<()>>) {
        if !self.is_held_by(hold) {
            reply.map(|reply| reply.send(Err(errors::not_ours())));
        } else if batch.releases == sql::RELEASES {
            self.of_grants.push(HoldCommand::Release { hold, reply });
        } else {
            batch.releases += 1;
            self.keys.insert(hold.keys.lock, State::Releasing);
            let step = match self.quiet_until {
                None => Step::Release,
                Some(_) => Step::ReleaseQuietly,
            };
            batch.push(step, hold.keys, Row::Release(hold, reply));
        }
    }

    fn add_unregistrations(&mut self, batch: &mut Batch) {
        for key in self.shared.waiters.take_left() {
            if self.shared.waiters.is_waited_for(&key) {
                continue;
            }
            self.due.remove(&key);
            if let Some(wait) = self.registered.remove(&key) {
                batch.push_wait(Step::Unregister, wait, Row::Unregister);
            }
        }
        if self.is_registered_for_everything && self.shared.waiters.is_empty() {
            self.is_registered_for_everything = false;
            batch.push_wait(Step::Unregister, sql::EVERYTHING, Row::Unregister);
        }
    }

    /// Tries for those who wait. What there is no room for stays due: the next batch goes on behind it, or
    /// the one after a release.
    fn add_due(&mut self, batch: &mut Batch, session: &Session) {
        let cap = self.cap(session);
        while let Some(key) = self.next_due() {
            if batch.is_full() || self.keys.len() >= cap {
                return;
            }
            self.due.remove(&key);
            self.last_due = key;
            let is_free = !self.keys.contains_key(&key) && self.handed_over.get(&key).is_none();
            // When we hold it ourselves, its release makes it due again.
            if is_free && let Some(keys) = self.shared.waiters.about(&key) {
                self.add_watched_try(batch, keys, Row::Watched(keys));
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
            Some(State::Held(_) | State::Trying) => {
                let _ = reply.send(Ok(Attempt::Held { retry_in: None }));
                return;
            }
            None => {}
        }
        let cap = self.cap(session);
        // What is under way, all of it in this batch, leaves room or is held when that was answered.
        let held = self.keys.len() - batch.tries - batch.releases;
        if held >= cap {
            let _ = reply.send(Err(errors::full(cap, held)));
        } else if self.keys.len() >= cap || batch.is_full() {
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

    fn push_try(&mut self, batch: &mut Batch, step: Step, keys: Keys, row: Row) {
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
        } else if self.registered.len() < REGISTRATIONS {
            // Counted now, so that one batch does not go over the limit.
            self.registered.insert(lock, wait);
            Step::RegisterAndTry
        } else {
            if !self.is_registered_for_everything {
                self.is_registered_for_everything = true;
                let (step, row) = (Step::RegisterForEverything, Row::RegisterForEverything);
                batch.push_wait(step, sql::EVERYTHING, row);
            }
            Step::Try
        };
        self.push_try(batch, step, keys, row);
    }

    fn settle(&mut self, session: &Session, batch: Batch, answers: &[u8]) {
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
                Row::RegisterForEverything => {
                    self.is_registered_for_everything = *answer == answer::REGISTERED;
                }
                Row::TellEverybody if *answer == answer::AWAITED => self.be_fair(&released),
                Row::Unregister | Row::TellEverybody => {}
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
    fn be_quiet(&mut self, error: &LockError) {
        let now = Instant::now();
        self.quiet.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                error = error as &dyn std::error::Error, failures, lasting,
                "cannot notify other processes of releases in PostgreSQL: their waiters poll a few times a second"
            );
        });
        self.quiet_until = Some(now + QUIET);
    }

    fn settle_release(&mut self, hold: Hold, answer: u8) -> Result<(), LockError> {
        let key = hold.keys.lock;
        self.keys.remove(&key);
        if answer == answer::AWAITED {
            self.handed_over.begin(key, (), Instant::now());
        } else if self.shared.waiters.is_waited_for(&key) {
            self.due.insert(key);
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
    pub(super) fn grant(&mut self, session: &Session, keys: Keys) -> Option<PostgresGrant> {
        let hold = self.new_hold(keys);
        self.keys.insert(keys.lock, State::Held(hold.owner));
        let client = self.client.upgrade()?;
        Some(PostgresGrant::new(client, hold, session.lease.clone()))
    }

    /// The session is over before the answer: a try is made again in the next, where it takes
    /// nothing that it has; a lock that was to be released is free.
    fn put_back(&mut self, batch: Batch) {
        let mut first = Vec::new();
        for row in batch.rows {
            match row {
                Row::Try(keys, reply) => first.push(Request::Try { keys, reply }),
                Row::Release(_, Some(reply)) => drop(reply.send(Err(errors::not_ours()))),
                _ => {}
            }
        }
        self.backlog.splice(..0, first);
    }

    /// Nothing is known of what the statement did before it failed: what it has left is found and
    /// unlocked, and then all are answered.
    async fn batch_failed(
        &mut self,
        session: &mut Session,
        batch: Batch,
        error: Error,
    ) -> Result<(), Failed> {
        let releases = batch.rows.iter().filter_map(|row| match row {
            Row::Release(hold, _) => Some(hold.keys.lock),
            _ => None,
        });
        // What keeps the server from taking this notification keeps it from the next as well.
        let is_refused = errors::is_notification_refused(&error);
        let told = (!is_refused).then(|| releases.collect());
        if let Err(lost) = self.recover(session, told).await {
            self.put_back(batch);
            return Err(lost);
        }
        let error = errors::statement(error, session.limits);
        if is_refused {
            self.be_quiet(&error);
        }
        for row in batch.rows {
            match row {
                Row::Release(hold, reply) => {
                    let released = self.settle_release(hold, answer::AWAITED);
                    reply.map(|reply| reply.send(released));
                }
                // It had nothing to do with them: they go again, without notifications.
                Row::Try(keys, reply) if is_refused => {
                    self.keys.remove(&keys.lock);
                    self.backlog.push(Request::Try { keys, reply });
                }
                Row::Watched(keys) if is_refused => {
                    self.keys.remove(&keys.lock);
                    self.due.insert(keys.lock);
                }
                Row::Try(keys, reply) => {
                    self.keys.remove(&keys.lock);
                    let _ = reply.send(Err(error.duplicate()));
                }
                Row::Watched(keys) => {
                    self.keys.remove(&keys.lock);
                    // They ask for themselves, and hear why it does not work.
                    self.shared.waiters.wake(&keys.lock);
                }
                Row::Unregister | Row::RegisterForEverything | Row::TellEverybody => {}
            }
        }
        Ok(())
    }
}

/// How a batch is sent: what is alone in a cheaper form.
#[derive(Clone, Copy)]
enum Form {
    Release,
    Try,
    RegisterAndTry,
    TryRegistered,
    Any,
    WithPairs,
}

impl Batch {
    fn form(&self) -> Form {
        match self.rows.as_slice() {
            _ if self.has_pairs => Form::WithPairs,
            [Row::Release(..), Row::TellEverybody] => Form::Release,
            [_] if self.steps[0] == Step::Try as i16 => Form::Try,
            [_] if self.steps[0] == Step::RegisterAndTry as i16 => Form::RegisterAndTry,
            [_] if self.steps[0] == Step::TryRegistered as i16 => Form::TryRegistered,
            _ => Form::Any,
        }
    }

    fn bind<'q>(&self, form: Form, query: Bound<'q>) -> Bound<'q> {
        let (lock, wait) = (self.locks[0], self.waits[0]);
        match form {
            Form::Try => query.bind(lock),
            Form::RegisterAndTry | Form::TryRegistered => query.bind(lock).bind(wait),
            Form::Release => query.bind(lock).bind(wait).bind(sql::EVERYTHING),
            Form::Any | Form::WithPairs => {
                let rows = query.bind(&self.steps).bind(&self.locks).bind(&self.waits);
                let rows = rows.bind(sql::EVERYTHING);
                match form {
                    Form::WithPairs => rows.bind(&self.pairs),
                    _ => rows,
                }
            }
        }
    }
}

impl Form {
    fn statement(self) -> Statement {
        match self {
            Self::Release => const { Statement::new(sql::RELEASE) },
            Self::Try => const { Statement::new(sql::TRY) },
            Self::RegisterAndTry => const { Statement::new(sql::REGISTER_AND_TRY) },
            Self::TryRegistered => const { Statement::new(sql::TRY_REGISTERED) },
            Self::Any => const { Statement::new(sql::BATCH) },
            Self::WithPairs => const { Statement::new(sql::BATCH_WITH_PAIRS) },
        }
    }
}
