//! Opens a session: connects, has the server and what is in front of it [checked](super::checks), and
//! makes the session a lease.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row, SqlSafeStr};

use super::addresses::Way;
use super::checks::{
    About, ask, by_us, check_notifications, check_reset, check_server, check_sessions, value,
};
use super::errors;
use super::front::{name_pgpool, name_servers};
use super::login::{listen, log_in};
use super::mark::Mark;
use super::session::Session;
use super::session_name::SessionName;
use super::statement::{self, Statement};
use super::steps::{Step, within};
use super::terms::Terms;
use super::transaction::DatabaseIdentity;
use super::wire::Wire;
use super::{rights, setup_sql, sql, system};
use crate::backend::{BootClock, Clock};
use crate::checked::passed;
use crate::outage::Repeated;
use crate::{LockError, entropy};

/// A session that was opened, and where.
pub(super) struct Opened {
    pub(super) session: Session,
    pub(super) home: DatabaseIdentity,
    /// Which database system that is, if this role may know.
    pub(super) system: Option<system::Identity>,
}

/// What a session needs.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) options: PgConnectOptions,
    pub(super) name: SessionName,
    pub(super) terms: Terms,
    pub(super) mark: Option<Mark>,
}

impl Target {
    pub(super) fn new(
        options: PgConnectOptions,
        name: SessionName,
        terms: Terms,
        mark: Option<Mark>,
    ) -> Self {
        // Neither keys nor slow statements belong in the log of the application.
        let options = options
            .application_name(name.as_str())
            .disable_statement_logging();
        Self {
            options,
            name,
            terms,
            mark,
        }
    }

    /// The same with other options.
    pub(super) fn at(&self, options: PgConnectOptions) -> Self {
        Self::new(options, self.name.clone(), self.terms, self.mark.clone())
    }

    /// Opens a session and ends the former one, if that still lives.
    ///
    /// # Errors
    ///
    /// What is wrong with the server, or with the way to it.
    pub(super) async fn open(&self, former: Option<i64>) -> Result<Opened, LockError> {
        let login = log_in(&self.options, Step::LogIn).await?;
        let opened = self.open_along(&login.way, login.connection, login.took, former);
        (Box::pin(opened).await).map_err(|error| login.way.explain(error))
    }

    /// The first session of a process.
    ///
    /// # Errors
    ///
    /// The same, by the name of what is in front of the server where that is known.
    pub(super) async fn open_first(&self) -> Result<Opened, LockError> {
        let login = log_in(&self.options, Step::LogIn).await?;
        let opened = self.open_along(&login.way, login.connection, login.took, None);
        match Box::pin(opened).await {
            Err(error) => {
                let error = name_pgpool(&login.way.options, error).await;
                Err(login.way.explain(error))
            }
            opened => opened,
        }
    }

    /// The rest, on the way that the witness has come; a login takes about as long as usual.
    async fn open_along(
        &self,
        way: &Way,
        mut witness: PgConnection,
        usual: Duration,
        former: Option<i64>,
    ) -> Result<Opened, LockError> {
        let looked = within(Step::Look, self.look(&mut witness, former)).await;
        let about = match looked {
            Ok(about) => about,
            Err(error) => return Err(self.name_missing(&mut witness, error).await),
        };
        passed!("login", "the process has logged in, in {usual:.1?}");
        passed!("rights", "the role has those that locks need");
        let listener = listen(&way.options, usual).await?;
        let mut wire = Wire::new(listener, witness)?;
        // First: behind a proxy that shares sessions, what is set would be another client's. Nothing is
        // left behind where that shows at a look.
        if about.is_pooled {
            within(Step::Listen, check_sessions(&mut wire)).await?;
            if former.is_none() {
                wire = check_reset(wire, &way.options).await?;
            }
        } else {
            passed!("pooler", "none");
        }
        let begun = match check_hearing(&mut wire, &about).await {
            Ok(()) => self.begin(&mut wire, former).await,
            Err(error) => Err(error),
        };
        let (marker, identity, home) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                let error = name_servers(&mut wire, error).await;
                return Err(self.name_missing(wire.witness(), error).await);
            }
        };
        // After all else: over a slow link that takes longer than a short lease.
        let sent = prove(&mut wire, &marker).await?;
        let session = Session::new(
            wire,
            marker,
            identity,
            about.limits,
            self.terms.lease(),
            about.is_readable,
            sent,
        );
        Ok(Opened {
            session,
            home,
            system: about.system,
        })
    }

    /// What kind of server this is, whether a pooler is in front of it, and whether the role has the
    /// rights that it needs. The former session ends: its place can be the one that the next needs.
    async fn look(
        &self,
        witness: &mut PgConnection,
        former: Option<i64>,
    ) -> Result<About, LockError> {
        // Together, in one exchange. Where that fails, apart, which shows what it was.
        let more = match former {
            Some(former) => sql::end_former(former, self.name.shared()),
            None => rights::trials(self.mark.is_some()),
        };
        let together = AssertSqlSafe(format!("{}; {more}; {}", sql::LOOK, system::ASKED));
        match sqlx::raw_sql(together).fetch_all(&mut *witness).await {
            Ok(rows) => return Ok(check_server(&rows)?.of_system(rows.last())),
            Err(error) if errors::is_fatal(&error) => return Err(errors::setting_up(error)),
            Err(_) => {}
        }
        let about = check_server(&ask(witness, sql::LOOK.to_owned()).await?)?;
        match former {
            Some(former) => end_former(witness, former, self.name.shared()).await,
            None => rights::check(witness, self.mark.is_some()).await?,
        }
        let [first, path] = sql::LOCAL;
        let system = ask(witness, [first, path, system::ASKED].join("; ")).await;
        Ok(about.of_system(system.ok().as_deref().and_then(<[PgRow]>::last)))
    }

    /// Makes the session a lease, shows that its locks exclude the witness, takes the mark, and ends the
    /// witness. Gives what marks the session, the key that it alone has, and where it is.
    async fn begin(
        &self,
        wire: &mut Wire,
        former: Option<i64>,
    ) -> Result<(String, i64, DatabaseIdentity), LockError> {
        let marker = format!("{:032x}", u128::from_ne_bytes(entropy::bytes()?));
        let identity = i64::from_ne_bytes(entropy::bytes()?);
        let tried = i64::from_ne_bytes(entropy::bytes()?);
        within(
            Step::SetUp,
            set_up(wire, self.terms, &marker, identity, tried),
        )
        .await?;
        let home = within(Step::CheckLocks, check_lock(wire, tried)).await?;
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
        within(Step::CheckLocks, check_unlock(wire, tried)).await?;
        Ok((marker, identity, home))
    }

    /// The same error, or the rights that are missing if it is for one.
    async fn name_missing(&self, witness: &mut PgConnection, error: LockError) -> LockError {
        if !errors::is_right(&error) {
            return error;
        }
        let known = error.duplicate();
        let named = rights::name_missing(witness, self.mark.is_some(), error);
        within(Step::Look, async { Ok(named.await) })
            .await
            .unwrap_or(known)
    }
}

/// Shows that the session is one, and listens to releases where it can.
async fn check_hearing(wire: &mut Wire, about: &About) -> Result<(), LockError> {
    if about.is_readable {
        return check_notifications(wire, about.is_deferrable).await;
    }
    within(Step::Listen, check_sessions(wire)).await?;
    static UNREADABLE: Repeated = Repeated::new();
    UNREADABLE.happened("", |times| tracing::warn!(
        times,
        "the database has an encoding in which any role can notify what cannot be read, which ends sessions: this one does not listen, and waiters poll a few times a second"
    ));
    Ok(())
}

/// Ends the former session, if it still lives and this role may. It ends by itself otherwise: nothing
/// that is in the way here keeps this process from a new one.
async fn end_former(witness: &mut PgConnection, former: i64, shared: usize) {
    let ended = sqlx::raw_sql(AssertSqlSafe(sql::end_former(former, shared)));
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

/// Makes the session a lease on the server's side, and marks it. It holds a lock after that.
async fn set_up(
    wire: &mut Wire,
    terms: Terms,
    marker: &str,
    identity: i64,
    tried: i64,
) -> Result<(), LockError> {
    let settings = settings(terms);
    let values = settings.iter().map(|(name, value, _)| (*name, *value));
    let begin = setup_sql::begin(values, marker, terms.lease_key(), identity, tried);
    let rows = by_us(wire, begin).await?;
    check_path(&rows)?;
    for row in rows.iter().filter(|row| row.len() == 2) {
        let text = |column| row.try_get::<&str, _>(column).map_err(errors::setting_up);
        let (name, setting) = (text(0)?, text(1)?);
        let expected = settings.iter().find(|(other, ..)| *other == name);
        if let Some((_, value, rule)) = expected
            && !rule.allows(*value, setting)
        {
            return Err(errors::setting_refused(name));
        }
    }
    let keys = rows.last().ok_or_else(errors::pooler)?;
    let has = |column| keys.try_get::<bool, _>(column).map_err(errors::setting_up);
    if !has(0)? || !has(1)? {
        return Err(errors::key_taken());
    }
    if !has(2)? {
        return Err(errors::look_alike());
    }
    let lease = Duration::from_millis(terms.lease_ms());
    passed!(
        "lease",
        "the server ends a session that is silent for {lease:?}, and no sooner"
    );
    Ok(())
}

/// From here on names in a session mean what PostgreSQL means by them: this is what [`sql::OWN_PATH`]
/// answered.
fn check_path(answer: &[PgRow]) -> Result<(), LockError> {
    let path: Option<&str> = answer.first().and_then(|row| row.try_get(0).ok());
    match path.is_some_and(|path| sql::PATHS.contains(&path)) {
        true => Ok(()),
        false => Err(errors::setting_refused("search_path")),
    }
}

/// Shows that the lock of the session excludes the witness, which says where it is.
async fn check_lock(wire: &mut Wire, tried: i64) -> Result<DatabaseIdentity, LockError> {
    let asked = setup_sql::witness(tried, &DatabaseIdentity::asked());
    let rows = ask(wire.witness(), asked).await?;
    check_path(&rows)?;
    let [_, got, home] = rows.as_slice() else {
        return Err(errors::pooler());
    };
    if got.try_get(0).map_err(errors::setting_up)? {
        return Err(errors::look_alike());
    }
    DatabaseIdentity::read(home).map_err(errors::setting_up)
}

/// Shows that it does no more after an unlock: one is one where another session has the lock then. The
/// witness ends.
async fn check_unlock(wire: &mut Wire, tried: i64) -> Result<(), LockError> {
    let unlocked: bool = value(&by_us(wire, setup_sql::untry(tried)).await?)?;
    let rows = ask(wire.witness(), setup_sql::end_witness(tried)).await?;
    let [got, gave_back, _] = rows.as_slice() else {
        return Err(errors::pooler());
    };
    let is = |row: &PgRow| row.try_get::<bool, _>(0).map_err(errors::setting_up);
    if !unlocked || !is(got)? || !is(gave_back)? {
        return Err(errors::look_alike());
    }
    wire.end_witness();
    passed!(
        "exclusion",
        "a lock that is held was refused to another session, and granted to it later"
    );
    Ok(())
}

/// Whether the session is the marked one; tells when the statement was sent whose answer proves it, from
/// which its lease counts.
async fn prove(wire: &mut Wire, marker: &str) -> Result<Duration, LockError> {
    const PROOF: Statement = const { Statement::new(sql::HEARTBEAT) };
    // Known to the server by then, which takes an exchange of its own.
    let text = PROOF.sql().into_sql_str();
    let prepared = async |session: &mut PgConnection| session.prepare(text).await.map(drop);
    let prepared = wire.run(prepared, |_| ());
    let prepared = async { prepared.await.0.map_err(errors::setting_up) };
    within(Step::Prove, prepared).await?;
    let sent = BootClock.now();
    let query = PROOF.query().bind(marker);
    let answer = wire.run(async |session| query.fetch_all(session).await, |_| ());
    let answer = async { answer.await.0.map_err(errors::setting_up) };
    if statement::is_proof(&within(Step::Prove, answer).await?) {
        Ok(sent)
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
