//! How to connect.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use sqlx::PgPool;

use super::backend::LeaseTable;
use super::connections::Connections;
use super::direct::Direct;
use super::mark::RowMark;
use super::names::TABLE;
use super::setup::Setup;
use super::shared::{Chosen, Shared};
use super::thread;
use crate::credentials::Ask;
use crate::instance::Instance;
use crate::name::secret_fingerprint;
use crate::postgres::connect::Target;
use crate::postgres::login_options::LoginOptions;
use crate::postgres::mark::Mark;
use crate::postgres::place::{place, warn_unless_verified};
use crate::postgres::session_name::SessionName;
use crate::postgres::source::Source;
use crate::postgres::terms::Terms;
use crate::postgres::token_column::check_epoch;
use crate::postgres::url;
use crate::{Credentials, LockError, plain_text};

/// What operators see in `pg_stat_activity`. Not the name of sessions that hold advisory locks: those end
/// others of theirs that stand still. And without the instance: a pooler sets the name anew where a session
/// goes from one name to another.
const APPLICATION_NAME: &str = "distributed_lock_table";

/// How to connect to a server whose table holds the locks; from [`LeaseTable::builder`].
///
/// ```no_run
/// # use std::time::Duration;
/// # use lock_core::{LockError, LockProvider, postgres::LeaseTable};
/// # async fn f() -> Result<(), LockError> {
/// let table = LeaseTable::builder("postgres://app@pooler.example:6432/shop")
///     .lease(Duration::from_secs(10))
///     .namespace("billing")
///     .table("locks.leases")
///     .listen_url("postgres://app@db.example:5432/shop")
///     .connect()
///     .await?;
/// let locks = LockProvider::new(table);
/// # Ok(()) }
/// ```
#[must_use = "nothing is connected until `connect` is called"]
pub struct LeaseTableBuilder {
    source: Source,
    lease: Duration,
    namespace: String,
    instance: String,
    table: String,
    create_table: bool,
    token_epoch: u8,
    credentials: Option<Ask>,
    listen_url: Option<String>,
    mark: Option<Mark>,
}

impl LeaseTableBuilder {
    fn new(source: Source) -> Self {
        Self {
            source,
            lease: Duration::from_secs(30),
            namespace: String::new(),
            instance: String::new(),
            table: TABLE.to_owned(),
            create_table: true,
            token_epoch: 0,
            credentials: None,
            listen_url: None,
            mark: None,
        }
    }

    /// How long a lock lives without a renewal, which a live process makes every third of this: one second
    /// to nine hours, in whole milliseconds.
    ///
    /// # Default
    ///
    /// 30 seconds.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Keeps the locks of several applications in one table apart: the same name in another namespace is
    /// another lock. [What counts](crate::LockSettings#text) are its characters, but for blanks at the ends.
    ///
    /// # Default
    ///
    /// Empty.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// What this process is called in the rows of the locks that it holds (`holder`), for
    /// [`LockProvider::holder`](crate::LockProvider::holder) and for operators:
    /// [`LockSettings::instance`](crate::LockSettings::instance). All roles that may read the table see it.
    ///
    /// # Default
    ///
    /// `host:pid`.
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = instance.into();
        self
    }

    /// The table, which may begin with a schema and a dot. Processes with the tables of two schemas do not exclude each
    /// other: so a name without a schema is refused where another schema of the database has a table of locks of this
    /// name than the one that the `search_path` leads to.
    ///
    /// # Default
    ///
    /// `distributed_lock_leases`, where the `search_path` of the role says.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.table = table.into();
        self
    }

    /// Whether the table is made where it is missing. Otherwise, and where the role may not, the error has the
    /// [SQL](Self::table_sql) that makes it.
    ///
    /// # Default
    ///
    /// True.
    pub const fn create_table(mut self, create: bool) -> Self {
        self.create_table = create;
        self
    }

    /// The SQL that makes the table, for a migration; to run it again does nothing.
    ///
    /// ```
    /// # use lock_core::{LockError, postgres::LeaseTable};
    /// let builder = LeaseTable::builder("postgres://app@pooler.example/shop").table("locks.leases");
    /// assert!(builder.table_sql()?.contains(r#"CREATE TABLE IF NOT EXISTS "locks"."leases""#));
    /// # Ok::<_, LockError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) where [`table`](Self::table) is not a name.
    pub fn table_sql(&self) -> Result<String, LockError> {
        Ok(Setup::new(&self.table, false)?.sql())
    }

    /// Comes before everything else in fencing tokens, up to 126: raise it by one, for the whole fleet, when the
    /// locks move to another server or engine, whose tokens could be smaller.
    ///
    /// # Default
    ///
    /// 0.
    pub const fn token_epoch(mut self, epoch: u8) -> Self {
        self.token_epoch = epoch;
        self
    }

    /// Where user and password come from when they change while the process runs; asked for each connection that
    /// is made, also that of [`listen_url`](Self::listen_url). As
    /// [`PostgresBuilder::credentials`](crate::postgres::PostgresBuilder::credentials), which has an example.
    ///
    /// # Default
    ///
    /// None: what the connection string or the pool says.
    pub fn credentials<F, A, E>(mut self, function: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.credentials = Some(Ask::new(function));
        self
    }

    /// The address of the server itself, past the pooler: a waiter is woken by NOTIFY within milliseconds of a
    /// release, in place of a poll. Give it to all instances, or to none: each asks for the notifications that
    /// it needs, and all give them.
    ///
    /// It takes one connection more, directly to the server. That is checked when the process connects; where
    /// it breaks later, polling goes on, and it is made again.
    ///
    /// # Default
    ///
    /// None: waiters poll, all those of a process together, first after 50 ms and then after pauses that double
    /// up to 1 s.
    pub fn listen_url(mut self, url: impl Into<String>) -> Self {
        self.listen_url = Some(url.into());
        self
    }

    /// Says in the table that the locks of this process are there, and connects to none where another
    /// provider has them.
    pub(crate) fn mark(mut self, mark: Mark) -> Self {
        self.mark = Some(mark);
        self
    }

    /// Connects, and makes the table where it is missing. Logs where the locks are, at `info`.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) for what a retry does not change: the
    /// connection string, credentials, rights (with the SQL to run), a standby, a table of another version, a
    /// [table](Self::table) that is in other schemas as well.
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the server is not there.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing but the table is left behind.
    pub async fn connect(self) -> Result<LeaseTable, LockError> {
        let (options, pool) = self.source.read()?;
        let direct = self.listen_url.as_deref().map(url::parse).transpose();
        let direct = direct.map_err(|error| error.in_setting("listen_url"))?;
        check_epoch(self.token_epoch)?;
        let namespace = plain_text::namespace(&self.namespace)?.to_owned();
        let instance = Instance::of(&self.instance)?;
        let terms = Terms::new(self.lease)?;
        let setup = Setup::new(&self.table, self.create_table)?;
        let mark = self.mark.map(|mark| RowMark::new(mark, &namespace));
        warn_unless_verified(&options);
        let server = place(&options);
        let asker = self.credentials.map(Ask::here);
        let name = SessionName::without_instance(APPLICATION_NAME);
        let target = |options| Target::new(options, name.clone(), terms, None);
        let direct = direct.map(|options| {
            warn_unless_verified(&options);
            Direct::new(target(options), LoginOptions::new(None, asker.clone()))
        });
        let logins = LoginOptions::new(pool, asker.clone());
        let connections = Connections::new(target(options), logins);
        let chosen = Chosen {
            namespace,
            token_epoch: self.token_epoch,
            terms: terms.lease(),
            setup,
            mark: mark.transpose()?,
        };
        let shared = Shared::new(chosen, &instance, connections, direct)?;
        let opened = thread::start(shared).await?;
        tracing::info!(
            server,
            namespace = opened.shared.chosen.namespace,
            name_secret = secret_fingerprint(),
            "Distributed locks: PostgreSQL lease table {} (works behind transaction poolers)",
            opened.table.name()
        );
        Ok(LeaseTable::new(opened))
    }
}

impl LeaseTable {
    /// Connects to the server of this URL, or to the pooler in front of it, with the defaults of
    /// [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// As [`LeaseTableBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// As [`LeaseTableBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Self, LockError> {
        Self::builder(url).connect().await
    }

    /// Connects to the server of this pool, with its options and connections of its own.
    ///
    /// # Errors
    ///
    /// As [`LeaseTableBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// As [`LeaseTableBuilder::connect`].
    pub async fn from_pool(pool: &PgPool) -> Result<Self, LockError> {
        Self::builder_from_pool(pool).connect().await
    }

    /// How to connect to the server of this URL.
    pub fn builder(url: impl Into<String>) -> LeaseTableBuilder {
        LeaseTableBuilder::new(Source::Url(url.into()))
    }

    /// How to connect to the server of this pool.
    pub fn builder_from_pool(pool: &PgPool) -> LeaseTableBuilder {
        LeaseTableBuilder::new(Source::Pool(pool.clone()))
    }
}

impl fmt::Debug for LeaseTableBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the source, which has the password.
        f.debug_struct("LeaseTableBuilder")
            .field("lease", &self.lease)
            .field("namespace", &self.namespace)
            .field("instance", &self.instance)
            .field("table", &self.table)
            .field("create_table", &self.create_table)
            .field("token_epoch", &self.token_epoch)
            .finish_non_exhaustive()
    }
}
