//! What is refused when a session is opened: servers and proxies on which locks would lock nothing.
//!
//! A second connection, the witness, lives for these moments. It finds the plain mistakes first, and
//! then shows that the session is one: a notification that it sends must arrive, which a proxy that
//! shares sessions swallows, and a lock that the session holds must be refused to the witness, and
//! granted to it after the unlock.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Row};
use tokio::time::timeout;

use super::errors::{self, Limits};
use super::sql;
use super::wire::Wire;
use crate::outage::Repeated;
use crate::{LockError, entropy};

/// The oldest that ends sessions which are idle for too long.
const OLDEST: i32 = 140_000;

/// A notification takes milliseconds; a proxy that swallows it is given this long.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);

/// Encodings of a server of which each text is one of UTF-8.
const READABLE: [&str; 2] = ["UTF8", "LATIN1"];

/// Reads the limits of a server that can keep locks, and whether each notification there can be read.
pub(super) async fn check_server(witness: &mut PgConnection) -> Result<(Limits, bool), LockError> {
    let asked = sqlx::raw_sql(sql::LOOK);
    let row = asked.fetch_one(witness).await.map_err(errors::setting_up)?;
    let read = || {
        let limits = Limits {
            max_locks_per_transaction: row.try_get(2)?,
            max_connections: row.try_get(3)?,
        };
        let encoding: String = row.try_get(4)?;
        Ok((row.try_get(0)?, row.try_get(1)?, limits, encoding))
    };
    let (version, is_standby, limits, encoding) = read().map_err(errors::setting_up)?;
    check_version(version)?;
    if is_standby {
        return Err(errors::standby());
    }
    Ok((limits, READABLE.contains(&&*encoding)))
}

/// Whether a parameter that the driver always starts a session with has not arrived: poolers keep one
/// session for many clients, and are set up to ignore it.
pub(super) async fn has_lost_parameter(witness: &mut PgConnection) -> Result<bool, LockError> {
    const SENT: &str = "SELECT pg_catalog.current_setting('extra_float_digits')";
    let arrived = sqlx::raw_sql(SENT).fetch_one(witness).await;
    let value = arrived.and_then(|row| row.try_get::<String, _>(0));
    Ok(value.map_err(errors::setting_up)? != "2")
}

/// Whether a pooler resets a session before it gives it to another client. One that does not would
/// give the locks of a client that has left to a stranger, who works on with them. The witness leaves,
/// and comes back: a process never has more than two sessions of a pool.
pub(super) async fn check_reset(wire: Wire, options: &PgConnectOptions) -> Result<Wire, LockError> {
    const LEAVE: &str = "SELECT pg_catalog.set_config('distributed_lock.left', $1, false)";
    const FIND: &str = "SELECT pg_catalog.current_setting('distributed_lock.left', true)";
    let left = format!("{:032x}", u128::from_ne_bytes(entropy::bytes()?));
    let (listener, mut witness) = wire.into_parts().ok_or_else(errors::disconnected)?;
    // Not by name: the name can be taken in a session that was not reset.
    let leave = sqlx::query(LEAVE).bind(&left).persistent(false);
    leave
        .fetch_all(&mut witness)
        .await
        .map_err(errors::setting_up)?;
    witness.close().await.map_err(errors::setting_up)?;
    let next = PgConnection::connect_with(options).await;
    let mut next = next.map_err(|error| errors::logging_in(error, options))?;
    // Whether it can be found out is up to the pooler: it need not give the same session again.
    let find = sqlx::query_scalar(FIND).persistent(false);
    let found: Option<String> = find
        .fetch_one(&mut next)
        .await
        .map_err(errors::setting_up)?;
    if found == Some(left) {
        return Err(errors::no_reset());
    }
    Wire::new(listener, next)
}

fn check_version(version: i32) -> Result<(), LockError> {
    if version < OLDEST {
        return Err(errors::too_old(version));
    }
    Ok(())
}

/// Listens, and shows that a notification of the witness arrives.
pub(super) async fn check_notifications(wire: &mut Wire) -> Result<(), LockError> {
    let listener = wire.listener().ok_or_else(errors::disconnected)?;
    listener
        .listen(sql::CHANNEL)
        .await
        .map_err(errors::setting_up)?;
    let payload = format!("check {:016x}", u64::from_ne_bytes(entropy::bytes()?));
    let sent = sqlx::raw_sql(AssertSqlSafe(sql::tell_in_time(&payload)));
    match sent.fetch_all(wire.witness()).await {
        Ok(_) => {}
        Err(error) if errors::is_notification_late(&error) => {
            return Err(errors::notifications_held_up().with_source(error));
        }
        Err(error) if errors::is_queue_full(&error) => {
            check_sessions(wire).await?;
            static FULL: Repeated = Repeated::new();
            FULL.happened("", |times| {
                tracing::warn!(
                    error = %errors::queue_full(), times,
                    "the server takes no notifications: locks work, and waiters try a few times a second"
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
        return arrived;
    }
    // Another client has the session next, and understands no notifications.
    let _ = timeout(ARRIVES_WITHIN, listener.unlisten_all()).await;
    Err(errors::pooler())
}

/// Without notifications: a proxy that shares sessions gives the one that it has just had back, ours,
/// to whoever comes next. A statement that reaches another session later does nothing there.
pub(super) async fn check_sessions(wire: &mut Wire) -> Result<(), LockError> {
    const SESSION: &str = "SELECT pg_catalog.pg_backend_pid()";
    for _ in 0..3 {
        let ours = sqlx::query_scalar::<_, i32>(SESSION);
        let ours = wire.run(async |session| ours.fetch_one(session).await, |_| ());
        let ours = ours.await.0.map_err(errors::setting_up)?;
        let theirs = sqlx::query_scalar::<_, i32>(SESSION);
        let theirs = theirs.fetch_one(wire.witness()).await;
        if ours == theirs.map_err(errors::setting_up)? {
            return Err(errors::pooler());
        }
    }
    Ok(())
}

/// Shows that a lock of the session excludes the witness until it is unlocked.
pub(super) async fn check_locks(wire: &mut Wire) -> Result<(), LockError> {
    const TRY: &str = "SELECT pg_try_advisory_lock($1)";
    const UNLOCK: &str = "SELECT pg_advisory_unlock($1)";
    let key = i64::from_ne_bytes(entropy::bytes()?);
    // An unlock is one where another session has the lock then.
    let is_one = by_us(wire, TRY, key).await?
        && !by_witness(wire, TRY, key).await?
        && by_us(wire, UNLOCK, key).await?
        && by_witness(wire, TRY, key).await?
        && by_witness(wire, UNLOCK, key).await?;
    if is_one {
        Ok(())
    } else {
        Err(errors::look_alike())
    }
}

async fn by_us(wire: &mut Wire, step: &'static str, key: i64) -> Result<bool, LockError> {
    let asked = sqlx::query_scalar(step).bind(key);
    let answer = wire.run(async |session| asked.fetch_one(session).await, |_| ());
    answer.await.0.map_err(errors::setting_up)
}

async fn by_witness(wire: &mut Wire, step: &'static str, key: i64) -> Result<bool, LockError> {
    let asked = sqlx::query_scalar(step).bind(key);
    let answer = asked.fetch_one(wire.witness()).await;
    answer.map_err(errors::setting_up)
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
