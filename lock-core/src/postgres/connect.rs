//! Opening a session, and what is refused: servers and proxies on which locks would lock nothing.
//!
//! A second connection lives for these moments. It finds the plain mistakes first, and then shows
//! that the session is one: a notification that it sends must arrive, which a proxy that shares
//! sessions swallows, and a lock that the session holds must be refused to it.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::time::timeout;

use super::errors::{self, Limits};
use super::mark::Mark;
use super::session::Session;
use super::sql;
use super::terms::Terms;
use super::transaction::DatabaseIdentity;
use crate::backend::{BootClock, Clock};
use crate::{LockError, entropy};

/// The oldest that ends sessions which are idle for too long.
const OLDEST: i32 = 140_000;

/// A notification takes milliseconds; a proxy that swallows it is given this long.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);

/// What a session needs.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) options: PgConnectOptions,
    pub(super) terms: Terms,
    pub(super) mark: Option<Mark>,
}

impl Target {
    pub(super) fn new(
        options: PgConnectOptions,
        application_name: &str,
        terms: Terms,
        mark: Option<Mark>,
    ) -> Self {
        // Neither keys nor slow statements belong in the log of the application.
        let options = options
            .application_name(application_name)
            .disable_statement_logging();
        Self {
            options,
            terms,
            mark,
        }
    }

    /// Opens a session and ends the former one, if that still lives. Tells where the session is.
    ///
    /// # Errors
    ///
    /// What is wrong with the server, or with the way to it.
    pub(super) async fn open(
        &self,
        former: Option<i64>,
    ) -> Result<(Session, DatabaseIdentity), LockError> {
        let made = PgConnection::connect_with(&self.options).await;
        let mut witness = made.map_err(errors::connecting)?;
        let limits = check_server(&mut witness).await?;

        let mut listener = self.listener().await.map_err(errors::setting_up)?;
        // First: behind a proxy that shares sessions, settings would be somebody else's.
        check_notifications(&mut listener, &mut witness).await?;
        let marker = format!("{:032x}", u128::from_ne_bytes(entropy::bytes()?));
        let identity = i64::from_ne_bytes(entropy::bytes()?);
        let sent = BootClock.now();
        set_up(&mut listener, self.terms, &marker, identity).await?;
        check_locks(&mut listener, &mut witness).await?;
        if let Some(former) = former {
            let ended = sqlx::query(sql::END_FORMER).bind(former);
            ended
                .fetch_all(&mut witness)
                .await
                .map_err(errors::setting_up)?;
        }
        if let Some(mark) = &self.mark {
            // Who is refused again and again shows no mark meanwhile, for which others were refused.
            if former.is_some()
                && let Some(other) = mark.check(&mut listener).await?
            {
                return Err(mark.refusal(other));
            }
            mark.take(&mut listener).await?;
            if let Some(other) = mark.check(&mut listener).await? {
                return Err(mark.refusal(other));
            }
        }
        let home = DatabaseIdentity::read(&mut witness)
            .await
            .map_err(|_| errors::disconnected())?;
        // Its session ends with the socket, if not in order.
        let _ = witness.close().await;
        let session = Session::new(listener, marker, identity, limits, self.terms, sent);
        Ok((session, home))
    }

    /// A connection that is read while it is idle, and that does not make itself anew: its pool is
    /// its own and closed, so that all that is left of a lost connection is an error.
    async fn listener(&self) -> Result<PgListener, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        listener.eager_reconnect(false);
        // Closed from here on; the wait for its connection is not ours.
        drop(pool.close());
        Ok(listener)
    }
}

async fn check_server(witness: &mut PgConnection) -> Result<Limits, LockError> {
    let asked = sqlx::query(
        "SELECT current_setting('server_version_num')::int4, pg_is_in_recovery(), \
         current_setting('max_locks_per_transaction')::int8, \
         current_setting('max_connections')::int8",
    );
    let row = asked.fetch_one(witness).await.map_err(errors::setting_up)?;
    check_version(row.get(0))?;
    if row.get(1) {
        return Err(errors::standby());
    }
    Ok(Limits {
        max_locks_per_transaction: row.get(2),
        max_connections: row.get(3),
    })
}

fn check_version(version: i32) -> Result<(), LockError> {
    if version < OLDEST {
        return Err(errors::too_old(version));
    }
    Ok(())
}

/// Makes the session a lease on the server's side, and marks it.
async fn set_up(
    listener: &mut PgListener,
    terms: Terms,
    marker: &str,
    identity: i64,
) -> Result<(), LockError> {
    let settings = settings(terms);
    let (names, values): (Vec<_>, Vec<_>) = settings
        .iter()
        .map(|(name, value, _)| (*name, value.to_string()))
        .unzip();
    // Those that this version does not have are left out by the join.
    let set = sqlx::query(
        "SELECT set_config(s.name, t.value, false) \
         FROM unnest($1::text[], $2::text[]) AS t(name, value) JOIN pg_settings AS s USING (name)",
    );
    set.bind(&names)
        .bind(&values)
        .fetch_all(&mut *listener)
        .await
        .map_err(errors::setting_up)?;
    let read = sqlx::query("SELECT name, setting FROM pg_settings WHERE name = ANY($1)");
    let read = read.bind(&names).fetch_all(&mut *listener).await;
    for row in read.map_err(errors::setting_up)? {
        let (name, setting): (&str, &str) = (row.get(0), row.get(1));
        let expected = settings.iter().find(|(other, ..)| *other == name);
        if let Some((_, value, rule)) = expected
            && !rule.allows(*value, setting)
        {
            return Err(errors::setting_refused(name));
        }
    }
    let marked = sqlx::query(
        "SELECT set_config('distributed_lock.session', $1, false), \
         set_config('plan_cache_mode', 'force_generic_plan', false), \
         set_config('client_min_messages', 'error', false), \
         set_config('default_transaction_isolation', 'read committed', false), \
         set_config('default_transaction_read_only', 'off', false), \
         pg_try_advisory_lock_shared($2), \
         pg_try_advisory_lock_shared(($3::int8 >> 32)::int4, ($3::int8::bit(32))::int4)",
    );
    marked
        .bind(marker)
        .bind(terms.lease_key())
        .bind(identity)
        .fetch_one(&mut *listener)
        .await
        .map_err(errors::setting_up)?;
    Ok(())
}

/// What is read back of a setting.
enum Rule {
    Exactly,
    /// Or 0, which is what a socket that has no such limit says.
    AtLeast,
}

impl Rule {
    fn allows(&self, value: u64, setting: &str) -> bool {
        let Ok(setting) = setting.parse::<u64>() else {
            return false;
        };
        match self {
            Self::Exactly => setting == value,
            Self::AtLeast => setting >= value || setting == 0,
        }
    }
}

/// The limits of the session. None is shorter than the lease: a session that ends early frees its
/// locks while we count on them.
fn settings(terms: Terms) -> [(&'static str, u64, Rule); 9] {
    let lease = terms.lease_ms();
    let seconds = lease.div_ceil(1_000);
    [
        ("idle_session_timeout", lease, Rule::Exactly),
        ("idle_in_transaction_session_timeout", lease, Rule::Exactly),
        ("transaction_timeout", lease, Rule::Exactly),
        ("statement_timeout", 0, Rule::Exactly),
        // Notifications wait behind the commits of others.
        ("lock_timeout", 200, Rule::Exactly),
        ("tcp_user_timeout", lease + 1_000, Rule::AtLeast),
        ("tcp_keepalives_idle", seconds, Rule::AtLeast),
        ("tcp_keepalives_interval", 1, Rule::AtLeast),
        ("tcp_keepalives_count", 3, Rule::AtLeast),
    ]
}

async fn check_notifications(
    listener: &mut PgListener,
    witness: &mut PgConnection,
) -> Result<(), LockError> {
    listener
        .listen(sql::CHANNEL)
        .await
        .map_err(errors::setting_up)?;
    let payload = format!("check {:016x}", u64::from_ne_bytes(entropy::bytes()?));
    let sent = sqlx::query(sql::TELL_IN_TIME).bind(&payload);
    match sent.fetch_all(witness).await {
        Ok(_) => {}
        Err(error) if errors::is_notification_late(&error) => {
            return Err(errors::notifications_held_up().with_source(error));
        }
        Err(error) => return Err(errors::setting_up(error)),
    }
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
    arrived.await.unwrap_or_else(|_| Err(errors::pooler()))
}

async fn check_locks(
    listener: &mut PgListener,
    witness: &mut PgConnection,
) -> Result<(), LockError> {
    const TRY: &str = "SELECT pg_try_advisory_lock($1)";
    let key = i64::from_ne_bytes(entropy::bytes()?);
    let ours = sqlx::query_scalar::<_, bool>(TRY).bind(key);
    let ours = ours.fetch_one(&mut *listener).await;
    let theirs = sqlx::query_scalar::<_, bool>(TRY).bind(key);
    let theirs = theirs.fetch_one(witness).await;
    if !ours.map_err(errors::setting_up)? || theirs.map_err(errors::setting_up)? {
        return Err(errors::look_alike());
    }
    let unlocked = sqlx::query_scalar::<_, bool>("SELECT pg_advisory_unlock($1)").bind(key);
    let unlocked = unlocked.fetch_one(&mut *listener).await;
    if !unlocked.map_err(errors::setting_up)? {
        return Err(errors::look_alike());
    }
    Ok(())
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
