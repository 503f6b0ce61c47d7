//! What is refused when a session is opened: servers and proxies on which locks would lock nothing.
//!
//! A second connection, the witness, lives for these moments. It finds the plain mistakes first, and
//! then shows that the session is one: a notification that it sends must arrive, which a proxy that
//! shares sessions swallows, and a lock that the session holds must be refused to the witness, and
//! granted to it after the unlock.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Decode, Postgres, Row, Type};
use tokio::time::{Instant, sleep, timeout};

use super::errors::{self, Limits};
use super::login::log_in;
use super::setup_sql::{find, leave, session, tell_in_time, try_left, untry};
use super::steps::{Step, within};
use super::wire::Wire;
use super::{sql, system};
use crate::checked::passed;
use crate::outage::Repeated;
use crate::{LockError, entropy};

/// The oldest that ends sessions which are idle for too long.
const OLDEST: i32 = 140_000;

/// A notification takes milliseconds; a proxy that swallows it is given this long.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);

/// A pooler resets a session in milliseconds.
const RESET_WITHIN: Duration = Duration::from_secs(2);

/// Encodings of a server of which each text is one of UTF-8.
const READABLE: [&str; 2] = ["UTF8", "LATIN1"];

/// What there is to know before a session begins.
pub(super) struct About {
    pub(super) limits: Limits,
    /// Whether a pooler seems to be in front of the server: a parameter that the driver always starts a
    /// session with has not arrived. Poolers keep one session for many clients, and are set up to ignore
    /// it.
    pub(super) is_pooled: bool,
    /// Whether the payload of each notification can be sent to us. One that cannot is an error that was
    /// not asked for, after which the driver takes the session for lost.
    pub(super) is_readable: bool,
    /// Whether transactions of the role wait, if they are read-only, until no other runs that is
    /// serializable: so does that in which a session receives a notification.
    pub(super) is_deferrable: bool,
    /// Which database system it is, if that is known.
    pub(super) system: Option<system::Identity>,
}

impl About {
    /// The same with what [`system::ASKED`] answered.
    pub(super) fn of_system(mut self, row: Option<&PgRow>) -> Self {
        self.system = row.and_then(|row| system::Identity::read(row).ok());
        self
    }
}

/// Judges by the row that [`sql::LOOK`] answers.
pub(super) fn check_server(looked: &[PgRow]) -> Result<About, LockError> {
    let row = looked.first().ok_or_else(errors::pooler)?;
    let read = || {
        let limits = Limits {
            max_locks_per_transaction: row.try_get(2)?,
            max_connections: row.try_get(3)?,
        };
        let about = About {
            limits,
            is_readable: READABLE.contains(&row.try_get(4)?),
            is_pooled: row.try_get::<&str, _>(5)? != "2",
            is_deferrable: row.try_get::<&str, _>(6)? == "on",
            system: None,
        };
        Ok((row.try_get(0)?, row.try_get(1)?, about))
    };
    let (version, is_standby, about) = read().map_err(errors::setting_up)?;
    check_version(version)?;
    if is_standby {
        return Err(errors::standby());
    }
    let (major, minor) = (version / 10_000, version % 10_000);
    passed!("server", "PostgreSQL {major}.{minor}, a primary");
    let Limits {
        max_locks_per_transaction: each,
        max_connections: sessions,
    } = about.limits;
    passed!(
        "lock table",
        "room for {} locks, of which a process takes a quarter at most (max_locks_per_transaction {each} x \
         max_connections {sessions})",
        each.saturating_mul(sessions)
    );
    Ok(about)
}

/// Whether a pooler resets a session before it gives it to another client, its settings and its locks. One
/// that does not would give the locks of a client that has left to another, or keep them for ever. The witness
/// leaves, and comes back: a process never has more than two sessions of a pool.
pub(super) async fn check_reset(wire: Wire, options: &PgConnectOptions) -> Result<Wire, LockError> {
    let left = i64::from_ne_bytes(entropy::bytes()?);
    let (listener, mut witness) = wire.into_parts().ok_or_else(errors::disconnected)?;
    within(Step::CheckReset, async {
        ask(&mut witness, leave(left)).await?;
        witness.close().await.map_err(errors::setting_up)
    })
    .await?;
    let mut next = log_in(options, Step::CheckReset).await?.connection;
    // Whether it can be found out is up to the pooler: it need not give the same session again.
    let found = within(Step::CheckReset, ask(&mut next, find())).await?;
    if value::<Option<&str>>(&found)? == Some(&left.to_string()) {
        return Err(errors::no_reset());
    }
    let mut wire = Wire::new(listener, next)?;
    // The lock is looked for from another session, so that it does not matter which one comes next. The
    // session that had it can be on its way through the reset.
    let until = Instant::now() + RESET_WITHIN;
    while !value::<bool>(&within(Step::CheckReset, by_us(&mut wire, try_left(left))).await?)? {
        if Instant::now() >= until {
            return Err(errors::no_reset());
        }
        sleep(RESET_WITHIN / 100).await;
    }
    within(Step::CheckReset, by_us(&mut wire, untry(left))).await?;
    passed!(
        "pooler",
        "one that keeps a session for each client, and resets it before the next"
    );
    Ok(wire)
}

fn check_version(version: i32) -> Result<(), LockError> {
    if version < OLDEST {
        return Err(errors::too_old(version));
    }
    Ok(())
}

/// Listens, and shows that a notification of the witness arrives.
pub(super) async fn check_notifications(
    wire: &mut Wire,
    is_deferrable: bool,
) -> Result<(), LockError> {
    if is_deferrable {
        const SET: &str = "SET default_transaction_deferrable = off";
        within(Step::Listen, by_us(wire, SET.to_owned())).await?;
    }
    let listener = wire.listener().ok_or_else(errors::disconnected)?;
    within(Step::Listen, async {
        let listening = listener.listen(sql::CHANNEL).await;
        listening.map_err(errors::setting_up)
    })
    .await?;
    let payload = format!("check {:016x}", u64::from_ne_bytes(entropy::bytes()?));
    let sent = sqlx::raw_sql(AssertSqlSafe(tell_in_time(&payload)));
    let sent = async { Ok(sent.fetch_all(wire.witness()).await) };
    match within(Step::CheckNotifications, sent).await? {
        Ok(_) => {}
        Err(error) if errors::is_notification_late(&error) => {
            return Err(errors::notifications_held_up().with_source(error));
        }
        Err(error) if errors::is_queue_full(&error) => {
            within(Step::Listen, check_sessions(wire)).await?;
            static FULL: Repeated = Repeated::new();
            FULL.happened("", |times| {
                tracing::warn!(
                    error = %errors::queue_full(), times,
                    "the server accepts no notifications: locks work, and waiters poll a few times a second"
                );
            });
            return Ok(());
        }
        Err(error) => return Err(errors::setting_up(error)),
    }
    let listener = wire.listener().ok_or_else(errors::disconnected)?;
    let arrived = timeout(ARRIVES_WITHIN, async {
        loop {
            match listener.try_recv().await {
                Ok(Some(notification)) if notification.payload() == payload => return Ok(()),
                Ok(Some(_)) => {}
                Ok(None) => return Err(errors::disconnected()),
                Err(error) => return Err(errors::setting_up(error)),
            }
        }
    });
    if let Ok(arrived) = arrived.await {
        arrived?;
        passed!("notifications", "one that another session sent has arrived");
        return Ok(());
    }
    // Another client has the session next, and understands no notifications.
    let _ = timeout(ARRIVES_WITHIN, listener.unlisten_all()).await;
    if is_deferrable {
        const RESET: &str = "RESET default_transaction_deferrable";
        let _ = timeout(ARRIVES_WITHIN, by_us(wire, RESET.to_owned())).await;
    }
    Err(errors::pooler())
}

/// Without notifications: a proxy that shares sessions gives the one that it has just had back, ours,
/// to the next client, or each of its sessions in turn. A statement that reaches another session later
/// does nothing there.
pub(super) async fn check_sessions(wire: &mut Wire) -> Result<(), LockError> {
    let mut first = None;
    for _ in 0..3 {
        let ours: i32 = value(&by_us(wire, session()).await?)?;
        let theirs: i32 = value(&ask(wire.witness(), session()).await?)?;
        let both = (ours, theirs);
        if ours == theirs || *first.get_or_insert(both) != both {
            return Err(errors::pooler());
        }
    }
    Ok(())
}

/// One exchange of the session.
pub(super) async fn by_us(wire: &mut Wire, statements: String) -> Result<Vec<PgRow>, LockError> {
    let asked = sqlx::raw_sql(AssertSqlSafe(statements));
    let answer = wire.run(async |session| asked.fetch_all(session).await, |_| ());
    answer.await.0.map_err(errors::setting_up)
}

/// One exchange of the witness.
pub(super) async fn ask(
    witness: &mut PgConnection,
    statements: String,
) -> Result<Vec<PgRow>, LockError> {
    let asked = sqlx::raw_sql(AssertSqlSafe(statements));
    asked.fetch_all(witness).await.map_err(errors::setting_up)
}

/// The first value of an answer.
pub(super) fn value<'r, T>(answer: &'r [PgRow]) -> Result<T, LockError>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
{
    let row = answer.first().ok_or_else(errors::pooler)?;
    row.try_get(0).map_err(errors::setting_up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_keep_silent_sessions_are_refused() {
        let error = check_version(130_012).unwrap_err();
        assert!(error.is_misconfigured());
        assert!(error.to_string().contains("PostgreSQL 13.12; use 14"));
        for version in [140_000, 150_020, 180_001] {
            assert!(check_version(version).is_ok());
        }
    }
}
