//! The connection of a session: statements on it, and what it receives while they run.
//!
//! Any role that may connect to the database can notify our channel, without end. The server sends all of
//! it before the answer to a statement, and the driver keeps what arrives meanwhile, without a limit,
//! for a listener that the statement has borrowed. So the connection changes places with a spare one
//! while a statement runs: its listener is free then, and [a thread of its own](super::drain) empties
//! it where that takes long, since the driver does not pause while there is something to read.

use std::mem;

use sqlx::postgres::{PgConnection, PgListener, PgNotification};
use sqlx::{Acquire, Connection, Error};

use super::drain::{Drain, Drained};
use crate::LockError;

/// A connection that is read while it is idle.
pub(super) struct Wire {
    drain: Drain,
    /// Not there while a statement runs.
    listener: Option<PgListener>,
    /// In the place of the connection while a statement runs. It is the witness of the beginning of
    /// the session, and is over after that.
    spare: PgConnection,
}

impl Wire {
    /// # Errors
    ///
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when there can be no thread.
    pub(super) fn new(listener: PgListener, witness: PgConnection) -> Result<Self, LockError> {
        Ok(Self {
            drain: Drain::new()?,
            listener: Some(listener),
            spare: witness,
        })
    }

    /// Both connections; `None` when one is gone.
    pub(super) fn into_parts(self) -> Option<(PgListener, PgConnection)> {
        let Self {
            listener, spare, ..
        } = self;
        Some((listener?, spare))
    }

    /// The other connection, until that [ends](Self::end_witness).
    pub(super) fn witness(&mut self) -> &mut PgConnection {
        &mut self.spare
    }

    /// The other connection has said its last: it stays as a place, and nothing is sent over it.
    pub(super) fn end_witness(&mut self) {
        self.spare.shrink_buffers();
    }

    /// Runs a statement; `heard` is called with the payload of each notification that came
    /// meanwhile. Tells whether there were more than are kept.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: what is left is of no use.
    pub(super) async fn run<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
        mut heard: impl FnMut(&str),
    ) -> (Result<T, Error>, bool) {
        let mut listener = match self.change_places().await {
            Ok(listener) => listener,
            Err(error) => return (Err(error), false),
        };
        while let Some(notification) = listener.next_buffered() {
            heard(notification.payload());
        }
        self.drain.begin(listener);
        let answer = statement(&mut self.spare).await;
        let Drained {
            listener,
            kept,
            has_more,
        } = self.drain.end();
        kept.iter().for_each(|payload| heard(payload));
        self.listener = listener;
        if let Some(listener) = &mut self.listener {
            while let Some(notification) = listener.next_buffered() {
                heard(notification.payload());
            }
        }
        let back = self.change_places().await.map(|listener| {
            self.listener = Some(listener);
        });
        (back.and(answer), has_more)
    }

    /// The next notification; `None` when the connection is gone.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no notification is lost.
    pub(super) async fn notified(&mut self) -> Option<PgNotification> {
        let listener = self.listener.as_mut()?;
        listener.try_recv().await.ok().flatten()
    }

    /// What is idle is in the listener, which reads it.
    pub(super) fn listener(&mut self) -> Option<&mut PgListener> {
        self.listener.as_mut()
    }

    async fn change_places(&mut self) -> Result<PgListener, Error> {
        let mut listener = self.listener.take().ok_or(Error::WorkerCrashed)?;
        mem::swap((&mut listener).acquire().await?, &mut self.spare);
        Ok(listener)
    }
}
