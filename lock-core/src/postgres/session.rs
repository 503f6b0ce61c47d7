//! One session on the server: the connection, its lease, and one statement at a time.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Error;
use sqlx::postgres::{PgListener, PgNotification};
use tokio::time::{Instant, sleep};

use super::desk::Handle;
use super::errors::{self, Limits};
use super::terms::Terms;
use crate::backend::{BootClock, Clock, Lease, LossReason};
use crate::server::{Board, Patience};

/// When a statement is out for this long, whoever waits for a lock asks for itself: it is to hear
/// that the server does not answer, and not that the lock is held.
const STALLED: Duration = Duration::from_millis(500);

/// A session. Its end is the end of all its locks.
///
/// # Why its lease ends before the server gives a lock away
///
/// The server ends the session when it has been idle for the whole lease, counted from its last
/// answer; nothing else of its limits is shorter. We count from before a statement was sent, which is
/// earlier, take a margin off, and only once it was answered. So on clocks that run at one rate the
/// lease is over first. A session that is ended for another reason closes the connection, which is
/// read also while nothing is asked.
pub(super) struct Session {
    pub(super) listener: PgListener,
    pub(super) lease: Lease,
    /// Marks the session, so that a statement which reaches another one does nothing.
    pub(super) marker: String,
    /// The key that it alone holds on the server, for as long as it is ours.
    pub(super) identity: i64,
    pub(super) limits: Limits,
    clock: BootClock,
    terms: Terms,
    /// When the last statement was sent that was answered.
    last_sent: Duration,
    /// With the server.
    patience: Patience,
    /// What was left of the lease when it was.
    pub(super) headroom: Duration,
}

/// However a session ends, by a panic as well: the socket goes, and with it every lock.
impl Drop for Session {
    fn drop(&mut self) {
        self.lease.lose(LossReason::Disconnected);
    }
}

/// How a statement failed.
pub(super) enum Failed {
    /// The session lives.
    Statement(Error),
    /// The session is over.
    Session(LossReason),
}

impl Session {
    /// A session whose last answered statement was sent then.
    pub(super) fn new(
        listener: PgListener,
        marker: String,
        identity: i64,
        limits: Limits,
        terms: Terms,
        sent: Duration,
    ) -> Self {
        let clock = BootClock;
        let lease = Lease::until(Arc::new(clock), sent + terms.validity(), terms.heartbeat());
        Self {
            listener,
            lease,
            marker,
            identity,
            limits,
            clock,
            terms,
            last_sent: sent,
            patience: Patience::new(),
            headroom: Duration::ZERO,
        }
    }

    /// Runs one statement, whose answer is read to the end.
    ///
    /// Only the end of the lease ends the wait for the answer: a caller that has no time leaves by
    /// itself.
    pub(super) async fn run<T>(
        &mut self,
        board: &Board<Handle>,
        statement: impl AsyncFnOnce(&mut PgListener, &str) -> Result<T, Error>,
    ) -> Result<T, Failed> {
        let (sent, started) = (self.clock.now(), Instant::now());
        let mut answer = pin!(statement(&mut self.listener, &self.marker));
        let at_once = self.patience.look(started, |cx| answer.as_mut().poll(cx));
        let answer = if let Some(answer) = at_once.await {
            Some(answer)
        } else {
            let mut stalled = pin!(sleep(STALLED));
            let mut is_stalled = false;
            loop {
                let left = self.lease.remaining().unwrap_or_default();
                if left.is_zero() {
                    break None;
                }
                tokio::select! {
                    biased;
                    answer = &mut answer => break Some(answer),
                    () = &mut stalled, if !is_stalled => {
                        is_stalled = true;
                        board.wake_all();
                    }
                    () = sleep(left) => {}
                }
            }
        };
        self.patience.took(started);
        match answer {
            None => Err(Failed::Session(LossReason::Expired)),
            Some(Err(error)) if errors::is_fatal(&error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the session is over"
                );
                Err(Failed::Session(LossReason::Disconnected))
            }
            Some(answer) => {
                self.last_sent = sent;
                self.headroom = self.lease.remaining().unwrap_or_default();
                self.lease.extend(sent + self.terms.validity());
                // What was frozen until now has no lease to extend, whatever the answer says.
                if let Some(reason) = self.lease.reason() {
                    return Err(Failed::Session(reason));
                }
                answer.map_err(Failed::Statement)
            }
        }
    }

    /// The next notification; `None` when the connection is gone.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no notification is lost.
    pub(super) async fn notified(&mut self) -> Option<PgNotification> {
        self.listener.try_recv().await.ok().flatten()
    }

    /// Time until a statement is due to keep the session.
    pub(super) fn until_heartbeat(&self) -> Duration {
        (self.last_sent + self.terms.heartbeat()).saturating_sub(self.clock.now())
    }
}
