//! One session on the server: the connection, its lease, and one statement at a time.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Decode, Error, Postgres, Row, SqlSafeStr, Type};
use tokio::time::{Instant, sleep};

use super::errors::{self, Limits};
use super::sql;
use super::statement::{self, Bound, Statement};
use super::wire::Wire;
use crate::backend::{BootClock, Clock, Lease, LossReason};
use crate::server::{AdaptiveSpin, LeaseTerms};

/// When a statement is out for this long, waiters try for themselves: they are to report that the server
/// does not answer, and not that the lock is held.
const STALLED: Duration = Duration::from_millis(500);

/// The waiters of this process, as far as a session has to do with them.
pub(super) trait KeyWaiters {
    fn is_empty(&self) -> bool;

    /// Whether one of them waits for this key.
    fn are_for(&self, key: i64) -> bool;

    fn wake_all(&self);
}

/// A session that takes no locks has none.
impl KeyWaiters for () {
    fn is_empty(&self) -> bool {
        true
    }

    fn are_for(&self, _: i64) -> bool {
        false
    }

    fn wake_all(&self) {}
}

/// A session. Its end is the end of all its locks.
///
/// # Why its lease ends before the server gives a lock away
///
/// The server ends the session when it has been idle for the whole lease, counted from its last
/// answer; nothing else of its limits is shorter. We count from before a statement was sent, which is
/// earlier, take a margin off, and only once an answer has come that proves that this session gave
/// it: an error does not, since it can be that of another session, which a proxy moved us to. So on
/// clocks that run at one rate the lease is over first. A session that is ended for another reason
/// closes the connection, which is read also while nothing is asked.
pub(super) struct Session {
    wire: Wire,
    pub(super) lease: Lease,
    /// Marks the session, so that a statement which reaches another one does nothing.
    marker: String,
    /// The key that it alone holds on the server, for as long as it is ours.
    pub(super) identity: i64,
    pub(super) limits: Limits,
    /// Keys that others have released while a statement ran, of those that are waited for.
    pub(super) heard: BTreeSet<i64>,
    /// Whether it can hear of releases.
    can_listen: bool,
    /// Whether it does, as it does when it is opened.
    pub(super) is_listening: bool,
    /// Whether there were more notifications than are looked at: any key can have been released.
    pub(super) has_missed: bool,
    clock: BootClock,
    terms: LeaseTerms,
    /// When the last heartbeat was sent. Other statements prove the session as well, and do not ask what has
    /// become of its server.
    last_beat: Duration,
    /// With the server.
    spin: AdaptiveSpin,
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
    /// The connection lives, and the answer does not say whose it is: the lease goes on as it was.
    Statement(Error),
    /// The session is over.
    Session(LossReason),
}

impl Failed {
    /// What the server says cannot be read.
    fn unusable(error: &Error) -> Self {
        tracing::debug!(
            error = error as &dyn std::error::Error,
            "the session is over"
        );
        Self::Session(LossReason::Disconnected)
    }
}

/// A value of an answer; one that does not fit is the end of the session.
pub(super) fn value<'r, T>(row: &'r PgRow, column: usize) -> Result<T, Failed>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
{
    row.try_get(column)
        .map_err(|error| Failed::unusable(&error))
}

/// Notes which of the released keys are waited for. The payload can be of any client.
fn hear(payload: &str, waiters: &impl KeyWaiters, heard: &mut BTreeSet<i64>) {
    if waiters.is_empty() {
        return;
    }
    for key in payload.split(',').take(sql::RELEASES) {
        let Ok(key) = u64::from_str_radix(key, 16) else {
            return;
        };
        let key = key.cast_signed();
        if waiters.are_for(key) {
            heard.insert(key);
        }
    }
}

impl Session {
    /// A session whose last answered statement was sent then.
    pub(super) fn new(
        wire: Wire,
        marker: String,
        identity: i64,
        limits: Limits,
        terms: LeaseTerms,
        can_listen: bool,
        sent: Duration,
    ) -> Self {
        let clock = BootClock;
        let lease = Lease::until(Arc::new(clock), terms.valid_until(sent), terms.heartbeat());
        Self {
            wire,
            lease,
            marker,
            identity,
            limits,
            heard: BTreeSet::new(),
            can_listen,
            is_listening: can_listen,
            has_missed: false,
            clock,
            terms,
            last_beat: sent,
            spin: AdaptiveSpin::new(),
            headroom: Duration::ZERO,
        }
    }

    /// Runs one statement, whose answer is read to the end; `bind` adds its values after the marker.
    /// An answer that proves the session extends the lease; one of another session is the end of
    /// ours.
    pub(super) async fn run<'q>(
        &mut self,
        waiters: &impl KeyWaiters,
        statement: Statement,
        bind: impl FnOnce(Bound<'q>) -> Bound<'q>,
    ) -> Result<Vec<PgRow>, Failed> {
        let sent = self.clock.now();
        let query = bind(statement.query().bind(&self.marker));
        let answer = self
            .exchange(waiters, async |connection| {
                query.fetch_all(connection).await
            })
            .await;
        match answer {
            Ok(rows) if !statement::is_proof(&rows) => {
                tracing::debug!("another session answered");
                return Err(Failed::Session(LossReason::Revoked));
            }
            Ok(_) => {
                self.headroom = self.lease.remaining().unwrap_or_default();
                self.lease.extend(self.terms.valid_until(sent));
            }
            Err(_) => {}
        }
        self.unless_lost(answer)
    }

    /// Keeps the session, and looks whether its server has become one that only reads: what it keeps locked then
    /// is free on the server that writes.
    pub(super) async fn beat(&mut self, waiters: &impl KeyWaiters) -> Result<(), Failed> {
        self.last_beat = self.clock.now();
        let beat = const { Statement::new(sql::HEARTBEAT) };
        let rows = self.run(waiters, beat, |beat| beat).await?;
        match rows.first().map_or(Ok(false), |row| value(row, 1))? {
            true => Err(Failed::Session(LossReason::ReadOnly)),
            false => Ok(()),
        }
    }

    /// Runs statements that prove nothing of the session: whatever they answer, the lease goes on as it
    /// was.
    pub(super) async fn run_beside(
        &mut self,
        waiters: &impl KeyWaiters,
        statements: impl SqlSafeStr,
    ) -> Result<Vec<PgRow>, Failed> {
        let query = sqlx::raw_sql(statements);
        let answer = self
            .exchange(waiters, async |connection| {
                query.fetch_all(connection).await
            })
            .await;
        self.unless_lost(answer)
    }

    /// Whether it does not hear of releases, and could.
    pub(super) fn is_deaf(&self) -> bool {
        self.can_listen && !self.is_listening
    }

    /// Receives releases whose notification is sent after this has returned.
    pub(super) async fn listen(&mut self, waiters: &impl KeyWaiters) -> Result<(), Failed> {
        self.run_beside(waiters, sql::LISTEN).await?;
        self.is_listening = true;
        Ok(())
    }

    /// Receives no release any more.
    pub(super) async fn unlisten(&mut self, waiters: &impl KeyWaiters) -> Result<(), Failed> {
        self.run_beside(waiters, sql::UNLISTEN).await?;
        self.is_listening = false;
        Ok(())
    }

    /// What was frozen until now has no lease any more, whatever the answer says.
    fn unless_lost(&self, answer: Result<Vec<PgRow>, Failed>) -> Result<Vec<PgRow>, Failed> {
        match self.lease.reason() {
            Some(reason) => Err(Failed::Session(reason)),
            None => answer,
        }
    }

    /// Sends, and waits for the answer. Only the end of the lease ends the wait: a caller that has no
    /// time leaves by itself.
    async fn exchange(
        &mut self,
        waiters: &impl KeyWaiters,
        send: impl AsyncFnOnce(&mut PgConnection) -> Result<Vec<PgRow>, Error>,
    ) -> Result<Vec<PgRow>, Failed> {
        let started = Instant::now();
        let heard = &mut self.heard;
        let mut answer = pin!(self.wire.run(send, |payload| hear(payload, waiters, heard)));
        let at_once = self.spin.look(started, |cx| answer.as_mut().poll(cx));
        let answered = if let Some(answer) = at_once.await {
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
                        waiters.wake_all();
                    }
                    () = sleep(left) => {}
                }
            }
        };
        self.spin.took(started);
        let (answer, has_more) = answered.ok_or(Failed::Session(LossReason::Expired))?;
        self.has_missed |= has_more;
        match answer {
            Err(error) if errors::is_fatal(&error) => Err(Failed::unusable(&error)),
            answer => answer.map_err(Failed::Statement),
        }
    }

    /// Completes when something was notified, which is [heard](Self::heard); `None` when the
    /// connection is gone.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no notification is lost.
    pub(super) async fn notified(&mut self, waiters: &impl KeyWaiters) -> Option<()> {
        let notification = self.wire.notified().await?;
        hear(notification.payload(), waiters, &mut self.heard);
        Some(())
    }

    /// The connection, for what neither needs nor extends the lease.
    pub(super) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Time until one is due.
    pub(super) fn until_heartbeat(&self) -> Duration {
        (self.last_beat + self.terms.heartbeat()).saturating_sub(self.clock.now())
    }
}
