//! Readers: locks that the session holds once for all of them.

use std::collections::HashSet;
use std::mem;

use super::collect::REGISTRATIONS;
use super::rows::{Batch, Readers, Row};
use super::settle::Answered;
use crate::LockError;
use crate::backend::Attempt;
use crate::postgres::driver::{Driver, State};
use crate::postgres::held::{Hold, PostgresGrant};
use crate::postgres::key::Keys;
use crate::postgres::session::{Failed, Session};
use crate::postgres::shared::Request;
use crate::postgres::sql::{Step, answer};
use crate::server::Reply;

impl Readers {
    /// What those asked for that do not wait.
    pub(super) fn into_requests(self) -> impl Iterator<Item = Request> {
        let Self { keys, replies, .. } = self;
        replies
            .into_iter()
            .map(move |reply| Request::Read { keys, reply })
    }
}

impl Driver {
    /// A try of a reader.
    pub(super) fn add_read(
        &mut self,
        batch: &mut Batch,
        session: &Session,
        keys: Keys,
        reply: Reply<Attempt<PostgresGrant>>,
    ) {
        if reply.is_closed() {
            return;
        }
        let key = keys.lock;
        if self.shared.waiters.is_waited_for(&key) {
            let _ = reply.send(Ok(Attempt::Held { retry_in: None }));
            return;
        }
        if let Some(readers) = readers_in(batch, key) {
            readers.replies.push(reply);
            return;
        }
        let has_room = match self.keys.get(&key) {
            Some(State::Held(_)) => {
                return drop(reply.send(Ok(Attempt::Held { retry_in: None })));
            }
            // An unlock or a try of a writer is in this batch.
            Some(State::Releasing | State::Trying) => {
                return self.backlog.push(Request::Read { keys, reply });
            }
            // Who joins takes no key.
            Some(State::Reading(_)) => Ok(!batch.is_full()),
            None => self.has_room(batch, session),
        };
        match has_room {
            Ok(true) => {
                self.push_read(batch, keys);
                if let Some(readers) = readers_in(batch, key) {
                    readers.replies.push(reply);
                }
            }
            Ok(false) => {
                batch.has_put_off = true;
                self.backlog.push(Request::Read { keys, reply });
            }
            Err(full) => drop(reply.send(Err(full))),
        }
    }

    /// Tries for readers that wait. A writer of this process that waits goes first: its end makes them due again.
    pub(super) fn add_due_readers(&mut self, batch: &mut Batch, session: &Session) {
        let cap = self.cap(session);
        for key in mem::take(&mut self.due_readers) {
            // Who joins takes no room.
            let is_joining = matches!(self.keys.get(&key), Some(State::Reading(_)));
            if batch.is_full() || (!is_joining && self.keys.len() >= cap) {
                self.due_readers.insert(key);
                continue;
            }
            let Some(keys) = self.shared.readers.about(&key) else {
                continue;
            };
            let may_try = match self.keys.get(&key) {
                None => self.handed_over.get(&key).is_none(),
                Some(State::Reading(_)) => true,
                _ => false,
            };
            if !may_try || self.shared.waiters.is_waited_for(&key) {
                continue;
            }
            if readers_in(batch, key).is_none() {
                self.push_read(batch, keys);
            }
            if let Some(readers) = readers_in(batch, key) {
                readers.is_watched = true;
            }
        }
    }

    /// A row for those who read this key; where one of them waits, after a registration.
    fn push_read(&mut self, batch: &mut Batch, keys: Keys) {
        if self.shared.readers.is_waited_for(&keys.lock) {
            batch.is_for_waiting = true;
            let is_registered = self.registered.contains_key(&keys.lock);
            if !is_registered && self.has_room_to_register(batch) {
                self.registered.insert(keys.lock, keys.wait);
                let row = Row::RegisterReaders(keys.lock);
                batch.push_wait(Step::Register, keys.wait, row);
            }
        }
        let is_joining = matches!(self.keys.get(&keys.lock), Some(State::Reading(_)));
        let readers = Readers {
            keys,
            is_joining,
            replies: Vec::new(),
            is_watched: false,
        };
        // In the place of the key of waiters, which has no part in it.
        let sent = Keys {
            wait: keys.want,
            ..keys
        };
        batch.reads.insert(keys.lock, batch.rows.len());
        match is_joining {
            true => batch.push(Step::Join, sent, Row::Read(readers)),
            false => self.push_try(batch, Step::Read, sent, Row::Read(readers)),
        }
    }

    pub(super) fn settle_read(
        &mut self,
        session: &Session,
        readers: Readers,
        answer: u8,
        replies: &mut Vec<Answered>,
    ) {
        let Readers { keys, .. } = readers;
        if answer != answer::GRANTED {
            if !readers.is_joining {
                self.keys.remove(&keys.lock);
            }
            self.was_refused = true;
            let held = |reply| Answered::Try(reply, Attempt::Held { retry_in: None });
            replies.extend(readers.replies.into_iter().map(held));
            return;
        }
        for reply in readers.replies {
            let attempt = match self.grant_read(session, keys) {
                Some(grant) => Attempt::Granted(grant),
                None => Attempt::Held { retry_in: None },
            };
            replies.push(Answered::Try(reply, attempt));
        }
        // One after the other: what is parked is one grant. Without a waiter it comes back, and is released.
        if readers.is_watched {
            if let Some(grant) = self.grant_read(session, keys) {
                drop(self.shared.readers.park(&keys.lock, grant));
            }
            if self.shared.readers.is_waited_for(&keys.lock) {
                self.due_readers.insert(keys.lock);
            }
        }
    }

    /// A grant beside those that there are; `None` if no caller is left to have it.
    fn grant_read(&mut self, session: &Session, keys: Keys) -> Option<PostgresGrant> {
        let hold = self.new_hold(keys, true);
        match self.keys.get_mut(&keys.lock) {
            Some(State::Reading(owners)) => drop(owners.insert(hold.owner)),
            _ => {
                let owners = HashSet::from([hold.owner]);
                self.keys.insert(keys.lock, State::Reading(owners));
            }
        }
        let client = self.client.upgrade()?;
        Some(PostgresGrant::new(client, hold, session.lease.clone()))
    }

    /// Ends the hold of a reader beside which there are others here: the session keeps the lock for these.
    pub(super) fn leave_readers(&mut self, hold: Hold) -> bool {
        match self.keys.get_mut(&hold.keys.lock) {
            Some(State::Reading(owners)) if owners.len() > 1 => owners.remove(&hold.owner),
            _ => false,
        }
    }

    /// The statement failed, and what it did was undone.
    pub(super) fn reading_failed(&mut self, readers: Readers, goes_again: bool, error: &LockError) {
        let key = readers.keys.lock;
        if !readers.is_joining {
            self.keys.remove(&key);
        }
        if goes_again {
            if readers.is_watched {
                self.due_readers.insert(key);
            }
            self.backlog.extend(readers.into_requests());
            return;
        }
        if readers.is_watched {
            self.shared.readers.wake(&key);
        }
        for reply in readers.replies {
            let _ = reply.send(Err(error.duplicate()));
        }
    }

    /// Keeps new readers from a lock that a writer here waits for. Of more than that readers are not kept out: those
    /// that wait do not fill the lock table.
    pub(super) fn want(&mut self, batch: &mut Batch, keys: Keys) {
        let is_waited_for = self.shared.waiters.is_waited_for(&keys.lock);
        let has_room = self.wanted.len() < REGISTRATIONS;
        if is_waited_for && has_room && !self.wanted.contains_key(&keys.lock) {
            self.wanted.insert(keys.lock, keys.want);
            // Another's can be in its place, whose end is notified.
            batch.is_for_waiting = true;
            batch.push_wait(Step::Want, keys.want, Row::Want(keys));
        }
    }

    /// No writer here waits any more.
    pub(super) fn want_no_more(&mut self, batch: &mut Batch, key: i64) {
        if let Some(want) = self.wanted.remove(&key) {
            batch.push_wait(Step::Unwant, want, Row::Unwant(key));
        }
        if self.shared.readers.is_waited_for(&key) {
            self.due_readers.insert(key);
        }
    }

    /// Readers elsewhere may come in again, unless the writer has the lock: then its release tells them.
    pub(super) fn settle_unwant(&mut self, key: i64) {
        if !matches!(self.keys.get(&key), Some(State::Held(_))) {
            self.given_up.push(key);
        }
    }

    pub(super) async fn tell_of_given_up(&mut self, session: &mut Session) -> Result<(), Failed> {
        let keys = mem::take(&mut self.given_up);
        self.tell(session, &keys).await
    }
}

fn readers_in(batch: &mut Batch, key: i64) -> Option<&mut Readers> {
    let position = *batch.reads.get(&key)?;
    match batch.rows.get_mut(position) {
        Some(Row::Read(readers)) => Some(readers),
        _ => None,
    }
}
