//! What a session does from time to time: heartbeats, and looks for sessions that stand still.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, SqlSafeStr};
use tokio::time::Instant;

use super::Driver;
use crate::LockError;
use crate::hand_over::HAND_OVER;
use crate::observe;
use crate::outage::SoFar;
use crate::postgres::session::{Failed, KeyWaiters, Session, value};
use crate::postgres::shared::Request;
use crate::postgres::{KIND, errors, sql};

/// How often sessions that stand still are looked for at most, while a lock is awaited or was refused:
/// for waiters with every second fallback, so that they have what such a session holds within a second.
const REAP: Duration = Duration::from_millis(500);

impl Driver {
    /// Keeps the session, and answers health checks.
    pub(super) async fn run_heartbeat(&mut self, session: &mut Session) -> Result<bool, Failed> {
        let is_asked = self
            .backlog
            .iter()
            .any(|request| matches!(request, Request::Health { .. }));
        if !is_asked && !session.until_heartbeat().is_zero() {
            return Ok(false);
        }
        // Those who have asked are answered by the next session where this one is over.
        let result = self.beat(session).await?;
        let asked = self
            .backlog
            .extract_if(.., |request| matches!(request, Request::Health { .. }));
        for request in asked {
            if let Request::Health { reply } = request {
                let result = match &result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(error.duplicate()),
                };
                let _ = reply.send(result);
            }
        }
        Ok(true)
    }

    /// One heartbeat; an error that leaves the session alive is given as that.
    async fn beat(&mut self, session: &mut Session) -> Result<Result<(), LockError>, Failed> {
        match session.beat(&*self.shared).await {
            Ok(()) => {
                observe::renew_headroom(KIND, session.headroom);
                self.heartbeats.over(|lasted| {
                    tracing::info!(
                        ?lasted,
                        "heartbeats of the PostgreSQL lock session are answered again"
                    );
                });
                Ok(Ok(()))
            }
            // Whose error it is, it does not say: the session shows what it holds, or is over.
            Err(Failed::Statement(error)) => {
                self.heartbeats.failed(|SoFar { failures, lasting }| {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        failures,
                        lasting,
                        "a heartbeat of the PostgreSQL lock session failed; checking its locks"
                    );
                });
                self.recover(session, None).await?;
                Ok(Err(errors::statement(error, session.limits)))
            }
            Err(lost) => Err(lost),
        }
    }

    /// Runs a look at other sessions, which the server cancels after [`Terms::look`](crate::postgres::terms::Terms::look):
    /// after the heartbeat that would become due meanwhile.
    pub(super) async fn look(
        &mut self,
        session: &mut Session,
        statement: impl SqlSafeStr,
    ) -> Result<Vec<PgRow>, Failed> {
        if session.until_heartbeat() < self.config.target.terms.look() {
            // Of one that failed the log tells, and the locks were checked instead.
            let _ = self.beat(session).await?;
        }
        session.run_beside(&*self.shared, statement).await
    }

    /// Where it is time for that, ends sessions that stand still inside a statement and still hold locks.
    pub(super) async fn reap(&mut self, session: &mut Session) -> Result<(), Failed> {
        let now = Instant::now();
        if self.next_reap > now {
            return Ok(());
        }
        self.next_reap = now + REAP;
        if !std::mem::take(&mut self.was_refused) && self.shared.is_empty() {
            return Ok(());
        }
        let lease = i64::try_from(self.config.target.terms.lease_ms()).unwrap_or(i64::MAX);
        let key = self.config.target.terms.lease_key();
        let shared = self.config.target.name.shared();
        let within = self.config.target.terms.look_ms();
        let statement = AssertSqlSafe(sql::reap(lease, key, shared, within));
        match self.look(session, statement).await {
            Ok(rows) => {
                self.reaper.over(|lasted| {
                    tracing::info!(?lasted, "stalled PostgreSQL sessions are looked for again");
                });
                let mut ended = 0_i64;
                for row in &rows {
                    ended = ended.saturating_add(value(row, 0)?);
                }
                if ended > 0 {
                    tracing::warn!(
                        ended,
                        "ended PostgreSQL sessions that had stalled for longer than their lease"
                    );
                    self.next_fallback = Instant::now() + HAND_OVER;
                }
                Ok(())
            }
            Err(Failed::Statement(error)) => {
                self.reaper.failed(|SoFar { failures, lasting }| {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error, failures, lasting,
                        "cannot look for stalled PostgreSQL sessions: locks that they hold are not freed; retrying"
                    );
                });
                // One that the server cut short kept the session from its locks for long.
                self.next_reap = Instant::now() + REAP.max(10 * now.elapsed());
                Ok(())
            }
            Err(lost) => Err(lost),
        }
    }
}
