//! Opens a session: connects, has the server and what is in front of it [checked](super::checks), and
//! makes the session a lease.

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use super::checks::{
    check_locks, check_notifications, check_reset, check_server, check_sessions, has_lost_parameter,
};
use super::errors::{self, Limits};
use super::mark::Mark;
use super::rights;
use super::session::Session;
use super::sql;
use super::statement::{self, Statement};
use super::terms::Terms;
use super::transaction::DatabaseIdentity;
use super::wire::Wire;
use crate::backend::{BootClock, Clock};
use crate::outage::Repeated;
use crate::{LockError, entropy};

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
        let mut witness = made.map_err(|error| errors::logging_in(error, &self.options))?;
        let looked = self.look(&mut witness, former).await;
        let About {
            limits,
            is_pooled,
            is_readable,
        } = match looked {
            Ok(found) => found,
            Err(error) => return Err(self.name_missing(&mut witness, error).await),
        };
        let listener = self.listener().await.map_err(errors::setting_up)?;
        let mut wire = Wire::new(listener, witness)?;
        // First: behind a proxy that shares sessions, what is set would be another client's. Nothing is
        // left behind where that shows at a look.
        if is_pooled {
            check_sessions(&mut wire).await?;
            if former.is_none() {
                wire = check_reset(wire, &self.options).await?;
            }
        }
        if is_readable {
            check_notifications(&mut wire).await?;
        } else {
            check_sessions(&mut wire).await?;
            static UNREADABLE: Repeated = Repeated::new();
            UNREADABLE.happened("", |times| tracing::warn!(
                times,
                "the database has an encoding in which any role can notify what cannot be read, which ends \
                 sessions: this one does not listen, and waiters try a few times a second"
            ));
        }
        let marker = format!("{:032x}", u128::from_ne_bytes(entropy::bytes()?));
        let identity = i64::from_ne_bytes(entropy::bytes()?);
        let home = match self.begin(&mut wire, &marker, identity, former).await {
            Ok(home) => home,
            Err(error) => return Err(self.name_missing(wire.witness(), error).await),
        };
        wire.end_witness().await.map_err(errors::setting_up)?;
        // After all else: over a slow link that takes longer than a short lease.
        let sent = BootClock.now();
        prove(&mut wire, &marker).await?;
        let session = Session::new(
            wire,
            marker,
            identity,
            limits,
            self.terms,
            is_readable,
            sent,
        );
        Ok((session, home))
    }

    /// What kind of server this is, whether a pooler is in front of it, and whether the role has the
    /// rights that it needs.
    async fn look(
        &self,
        witness: &mut PgConnection,
        former: Option<i64>,
    ) -> Result<About, LockError> {
        let (limits, is_readable) = check_server(witness).await?;
        let is_pooled = has_lost_parameter(witness).await?;
        match former {
            Some(former) => end_former(witness, former).await,
            None => rights::check(witness, self.mark.is_some()).await?,
        }
        Ok(About {
            limits,
            is_pooled,
            is_readable,
        })
    }

    /// Makes the session a lease, shows that its locks exclude, and takes the mark.
    async fn begin(
        &self,
        wire: &mut Wire,
        marker: &str,
        identity: i64,
        former: Option<i64>,
    ) -> Result<DatabaseIdentity, LockError> {
        let of_witness = sqlx::raw_sql(sql::OWN_PATH).fetch_all(wire.witness());
        check_path(of_witness.await)?;
        let own_path = async |session: &mut PgConnection| {
            sqlx::raw_sql(sql::OWN_PATH).fetch_all(session).await
        };
        check_path(wire.run(own_path, |_| ()).await.0)?;
        set_up(wire, self.terms, marker, identity).await?;
        check_locks(wire).await?;
        if let Some(mark) = &self.mark {
            // Who is refused again and again shows no mark meanwhile, for which others were refused.
            if former.is_some()
                && let Some(other) = mark.check(wire).await?
            {
                return Err(mark.refusal(other));
            }
            mark.take(wire).await?;
            if let Some(other) = mark.check(wire).await? {
                return Err(mark.refusal(other));
            }
        }
        let home = DatabaseIdentity::read(wire.witness()).await;
        home.map_err(errors::setting_up)
    }

    /// The same error, or the rights that are missing if it is for one.
    async fn name_missing(&self, witness: &mut PgConnection, error: LockError) -> LockError {
        if errors::is_right(&error) {
            rights::name_missing(witness, self.mark.is_some(), error).await
        } else {
            error
        }
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

/// What there is to know before a session begins.
struct About {
    limits: Limits,
    /// Whether a pooler seems to be in front of the server.
    is_pooled: bool,
    /// Whether the payload of each notification can be sent to us. One that cannot is an error that was
    /// not asked for, after which the driver takes the session for lost.
    is_readable: bool,
}

/// Ends the former session, if it still lives and this role may. It ends by itself otherwise: nothing
/// that is in the way here keeps this process from a new one.
async fn end_former(witness: &mut PgConnection, former: i64) {
    let ended = sqlx::raw_sql(AssertSqlSafe(sql::end_former(former)));
    if let Err(error) = ended.fetch_all(witness).await {
        static REFUSED: Repeated = Repeated::new();
        REFUSED.happened(&error.to_string(), |times| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                times,
                "the former session could not be ended, and holds its locks until its lease ends"
            );
        });
    }
}

/// From here on names in a session mean what PostgreSQL means by them: this is what [`sql::OWN_PATH`]
/// answered.
fn check_path(answer: Result<Vec<PgRow>, sqlx::Error>) -> Result<(), LockError> {
    let answer = answer.map_err(errors::setting_up)?;
    let path: Option<String> = answer.last().and_then(|row| row.try_get(0).ok());
    if path.as_deref() != Some(sql::PATH) {
        return Err(errors::setting_refused("search_path"));
    }
    Ok(())
}

/// Makes the session a lease on the server's side, and marks it.
async fn set_up(
    wire: &mut Wire,
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
    let set = set.bind(&names).bind(&values);
    wire.run(async |session| set.fetch_all(session).await, |_| ())
        .await
        .0
        .map_err(errors::setting_up)?;
    let read = sqlx::query("SELECT name, setting FROM pg_settings WHERE name = ANY($1)");
    let read = read.bind(&names);
    let read = wire.run(async |session| read.fetch_all(session).await, |_| ());
    for row in read.await.0.map_err(errors::setting_up)? {
        let text = |column| row.try_get::<&str, _>(column).map_err(errors::setting_up);
        let (name, setting) = (text(0)?, text(1)?);
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
         pg_try_advisory_lock_shared($3::int4, $4::int4)",
    );
    let marked = marked
        .bind(marker)
        .bind(terms.lease_key())
        .bind((identity >> 32) as i32)
        .bind(identity as i32);
    let marked = wire.run(async |session| marked.fetch_one(session).await, |_| ());
    let row = marked.await.0.map_err(errors::setting_up)?;
    for column in [5, 6] {
        if !row.try_get(column).map_err(errors::setting_up)? {
            return Err(errors::key_taken());
        }
    }
    Ok(())
}

/// Whether the session is the marked one, as its lease is to be counted from here.
async fn prove(wire: &mut Wire, marker: &str) -> Result<(), LockError> {
    const PROOF: Statement = const { Statement::new(sql::HEARTBEAT) };
    let query = PROOF.query().bind(marker);
    let answer = wire.run(async |session| query.fetch_all(session).await, |_| ());
    if statement::is_proof(&answer.await.0.map_err(errors::setting_up)?) {
        Ok(())
    } else {
        Err(errors::pooler())
    }
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
