//! Listening to what other processes release, for as long as there are waiters here.
//!
//! For each notification the server wakes all sessions that listen in its database, to whatever channel. If
//! every process did, a release would cost as much as there are processes. So one that waits for nothing
//! does not listen.
//!
//! # Why no release is missed
//!
//! A session listens before it sends the first try of a waiter: in a statement of its own, which has been
//! answered, and so committed. What releases the lock later than that try looked
//! finds the registration that the try has made before it looked, and notifies; the notification is
//! committed after ours, and reaches us. What has released it earlier has left it free for the try. It
//! stops listening only while there is no waiter; the next one begins with another try, which is preceded
//! by another LISTEN. Where the server refuses it, the fallback finds the lock.

use std::time::Duration;

use tokio::time::Instant;

use super::Driver;
use crate::outage::SoFar;
use crate::postgres::session::{Failed, KeyWaiters, Session};

/// How long there is no waiter before a session stops listening: one that waits now and then would pay for
/// both statements each time.
const LINGER: Duration = Duration::from_secs(5);

impl Driver {
    /// Before a try of a waiter.
    pub(super) async fn hear(&mut self, session: &mut Session) -> Result<(), Failed> {
        self.last_waited = Instant::now();
        if !session.is_deaf() {
            return Ok(());
        }
        match session.listen(&*self.shared).await {
            Ok(()) => {
                self.deaf.over(|lasted| {
                    tracing::info!(?lasted, "listening for releases in PostgreSQL again");
                });
                Ok(())
            }
            Err(Failed::Statement(error)) => {
                self.deaf.failed(|SoFar { failures, lasting }| {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        failures,
                        lasting,
                        "cannot listen for releases in PostgreSQL: waiters poll a few times a second"
                    );
                });
                Ok(())
            }
            Err(lost) => Err(lost),
        }
    }

    /// Stops listening when there has been no waiter for a while.
    pub(super) async fn rest(&mut self, session: &mut Session) -> Result<(), Failed> {
        let now = Instant::now();
        if !session.is_listening || now < self.last_waited + LINGER {
            return Ok(());
        }
        self.last_waited = now;
        if !self.shared.is_empty() {
            return Ok(());
        }
        match session.unlisten(&*self.shared).await {
            // It is tried again.
            Ok(()) | Err(Failed::Statement(_)) => Ok(()),
            Err(lost) => Err(lost),
        }
    }

    /// Time until [`rest`](Self::rest) has something to look at.
    pub(super) fn until_rest(&self, session: &Session) -> Option<Duration> {
        let now = Instant::now();
        let until = || (self.last_waited + LINGER).saturating_duration_since(now);
        session.is_listening.then(until)
    }
}
