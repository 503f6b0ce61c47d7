//! The statement that carries most commands: releases, registrations, tries.

mod collect;
mod readers;
mod rows;
mod settle;

use sqlx::Error;

use self::rows::{Batch, Row};
use super::Driver;
use crate::backend::LossReason;
use crate::postgres::errors;
use crate::postgres::session::{Failed, Session, value};
use crate::postgres::shared::Request;
use crate::postgres::sql::answer;

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
            .run(&*self.shared, form.statement(), |query| {
                batch.bind(form, query)
            })
            .await;
        let answers =
            rows.and_then(|rows| rows.first().map_or(Ok(String::new()), |row| value(row, 0)));
        match answers {
            Ok(answers) if answers.len() == batch.rows.len() => {
                self.settle(session, batch, answers.as_bytes());
                self.tell_of_given_up(session).await?;
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

    /// The session is over before the answer: a try is made again in the next, where it takes
    /// nothing that it has; a lock that was to be released is free.
    fn put_back(&mut self, batch: Batch) {
        let mut first = Vec::new();
        for row in batch.rows {
            match row {
                Row::Try(keys, reply) => first.push(Request::Try { keys, reply }),
                Row::Read(readers) => first.extend(readers.into_requests()),
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
            // Readers elsewhere may come in again.
            Row::Unwant(key) => Some(*key),
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
                Row::Read(readers) => self.reading_failed(readers, is_refused, &error),
                Row::Watched(keys) => {
                    self.keys.remove(&keys.lock);
                    // They ask for themselves, and hear why it does not work.
                    self.shared.waiters.wake(&keys.lock);
                }
                Row::Unregister
                | Row::RegisterForEverything
                | Row::RegisterReaders(_)
                | Row::Want(_)
                | Row::Unwant(_)
                | Row::TellEverybody => {}
            }
        }
        Ok(())
    }
}
