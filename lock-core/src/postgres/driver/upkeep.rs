//! What a session does from time to time: heartbeats, and looks for sessions that stand still.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::time::Instant;

use super::Driver;
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
        let result = match session.beat(&*self.shared).await {
            Ok(()) => {
                observe::renew_headroom(KIND, session.headroom);
                self.heartbeats.over(|lasted| {
                    tracing::info!(
                        ?lasted,
                        "heartbeats of the PostgreSQL lock session are answered again"
                    );
                });
                Ok(())
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
                Err(errors::statement(error, session.limits))
            }
            Err(lost) => return Err(lost),
        };
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
        let reaped = session
            .run_beside(&*self.shared, AssertSqlSafe(sql::reap(lease, key, shared)))
            .await;
        match reaped {
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
                Ok(())
            }
            Err(lost) => Err(lost),
        }
    }
}
