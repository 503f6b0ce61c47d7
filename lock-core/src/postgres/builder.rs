//! How to connect.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;

use super::backend::PostgresBackend;
use super::connect::Target;
use super::driver::{self, Config};
use super::key_scheme::{KeyScheme, Names};
use super::login_options::LoginOptions;
use super::mark::Mark;
use super::place::{place, warn_unless_verified};
use super::session_name::{SHARED, SessionName};
use super::source::Source;
use super::terms::Terms;
use super::token_column::check_epoch;
use crate::credentials::Ask;
use crate::instance::Instance;
use crate::name::secret_fingerprint;
use crate::{Credentials, LockError, LockName, plain_text};

/// How to connect to a PostgreSQL server; from [`PostgresBackend::builder`].
///
/// ```no_run
/// # use std::time::Duration;
/// # use lock_core::{LockError, LockProvider, postgres::PostgresBackend};
/// # async fn f() -> Result<(), LockError> {
/// let backend = PostgresBackend::builder("postgres://app@localhost/shop")
///     .lease(Duration::from_secs(10))
///     .namespace("billing")
///     .connect()
///     .await?;
/// let locks = LockProvider::new(backend);
/// # Ok(()) }
/// ```
#[must_use = "nothing is connected until `connect` is called"]
pub struct PostgresBuilder {
    source: Source,
    lease: Duration,
    namespace: String,
    names: Names,
    application_name: String,
    instance: String,
    max_held: Option<usize>,
    token_epoch: u8,
    credentials: Option<Ask>,
    mark: Option<Mark>,
}

impl PostgresBackend {
    /// Connects to the server of this URL, `postgres://user:password@host:port/database`, with the
    /// defaults of [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// As [`PostgresBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// As [`PostgresBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Self, LockError> {
        Self::builder(url).connect().await
    }

    /// Connects to the server of this pool, with the defaults of
    /// [`builder_from_pool`](Self::builder_from_pool): with the pool's options, over a connection of
    /// its own.
    ///
    /// # Errors
    ///
    /// As [`PostgresBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// As [`PostgresBuilder::connect`].
    pub async fn from_pool(pool: &PgPool) -> Result<Self, LockError> {
        Self::builder_from_pool(pool).connect().await
    }

    /// How to connect to the server of this URL.
    pub fn builder(url: impl Into<String>) -> PostgresBuilder {
        PostgresBuilder::new(Source::Url(url.into()))
    }

    /// How to connect to the server of this pool. The pool's connections are left alone: a lock lives
    /// on its session, and a pool hands its sessions around. Each session is made with the options that
    /// the pool has then: a password that `PgPool::set_connect_options` has set is used by the next one.
    /// The backend keeps a handle of the pool, also after it was closed, until the backend is closed.
    pub fn builder_from_pool(pool: &PgPool) -> PostgresBuilder {
        PostgresBuilder::new(Source::Pool(pool.clone()))
    }
}

impl PostgresBuilder {
    fn new(source: Source) -> Self {
        Self {
            source,
            lease: Duration::from_secs(30),
            namespace: String::new(),
            names: Names::default(),
            application_name: SHARED.to_owned(),
            instance: String::new(),
            max_held: None,
            token_epoch: 0,
            credentials: None,
            mark: None,
        }
    }

    /// How long the server waits for a client that it does not hear of before it frees its locks:
    /// one second to nine hours, in whole milliseconds. A client that is alive is heard of every third
    /// of this.
    ///
    /// # Default
    ///
    /// 30 seconds.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Keeps the locks of several applications in one database apart: the same name in another
    /// namespace is another lock. [What counts](crate::LockSettings#text) are its characters, but for
    /// blanks at the ends.
    ///
    /// # Default
    ///
    /// Empty.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Which keys stand for the names: those of another library, whose programs are to exclude this one and
    /// be excluded by it, or those of this library.
    ///
    /// ```no_run
    /// use lock_core::postgres::{KeyScheme, PostgresBackend};
    /// # use lock_core::LockError;
    /// # async fn f() -> Result<(), LockError> {
    /// // The .NET service locks `Orders/42` where this one locks `order:process:42`.
    /// let backend = PostgresBackend::builder("postgres://app@localhost/shop")
    ///     .keys(KeyScheme::Medallion)
    ///     .key_text(|name| match name.as_str().strip_prefix("order:process:") {
    ///         Some(id) => format!("Orders/{id}"),
    ///         None => name.to_string(),
    ///     })
    ///     .connect()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Default
    ///
    /// [`KeyScheme::Sha256`].
    pub fn keys(mut self, scheme: KeyScheme) -> Self {
        self.names.scheme = scheme;
        self
    }

    /// The text of which the key of a lock is made, in place of its name: the name that another library has
    /// for it, which may be any text. Names with one text are one lock.
    ///
    /// Ids are [escaped](LockName#values) in the name that the function is given: where other characters occur in
    /// them than letters, digits and `. _ - @ +`, it has to turn `%XX` back. It is called for each try
    /// and each wait, on the task of the caller.
    ///
    /// # Default
    ///
    /// The name itself.
    pub fn key_text<F>(mut self, text: F) -> Self
    where
        F: Fn(&LockName) -> String + Send + Sync + 'static,
    {
        self.names.text = Some(Arc::new(text));
        self
    }

    /// What operators see in `pg_stat_activity`, before the [instance](Self::instance). All instances of a
    /// service should have the same: a session that stands still inside a statement is ended by others of its
    /// name. It and the instance have 62 bytes at most.
    ///
    /// # Default
    ///
    /// `distributed_lock`.
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = name.into();
        self
    }

    /// What this process is called, after the [application name](Self::application_name) and a blank:
    /// `distributed_lock web-1:4711`; see [`LockSettings::instance`](crate::LockSettings::instance). All roles of
    /// the server see it.
    ///
    /// Another program that holds the key of a lock, and a transaction that
    /// [holds one](PostgresBackend::lock_in_transaction), are named by the last word of their `application_name`.
    ///
    /// # Default
    ///
    /// `host:pid`.
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = instance.into();
        self
    }

    /// How many locks this process holds at most; more are refused as
    /// [`Unavailable`](crate::LockErrorKind::Unavailable). The server's lock table is shared with
    /// all its clients, and when it is full no client can connect.
    ///
    /// # Default
    ///
    /// A quarter of the table: `max_locks_per_transaction * max_connections / 4`.
    pub fn max_held(mut self, locks: usize) -> Self {
        self.max_held = Some(locks);
        self
    }

    /// Comes before everything else in fencing tokens, up to 126. Raise it by one, for the whole
    /// fleet, when the locks move to another server or engine, whose tokens could be smaller.
    ///
    /// # Default
    ///
    /// 0.
    pub fn token_epoch(mut self, epoch: u8) -> Self {
        self.token_epoch = epoch;
        self
    }

    /// Where user and password come from when they change while the process runs: tokens of IAM, secrets
    /// of a vault, a file that is written anew. Asked for each session that is made, when the process
    /// connects and when it comes back; both connections of that moment have the answer. It goes before
    /// what the connection string or the pool says, and what else they say stays.
    ///
    /// ```no_run
    /// # use lock_core::{Credentials, LockError, postgres::PostgresBackend};
    /// # struct Vault;
    /// # impl Vault { async fn read(&self) -> Result<String, std::io::Error> { unimplemented!() } }
    /// # async fn f(vault: std::sync::Arc<Vault>) -> Result<(), LockError> {
    /// let backend = PostgresBackend::builder("postgres://app@db.example/shop?sslmode=verify-full")
    ///     .credentials(move || {
    ///         let vault = vault.clone();
    ///         async move { Ok::<_, std::io::Error>(Credentials::password(vault.read().await?)) }
    ///     })
    ///     .connect()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// - Its future runs on the runtime that [`connect`](Self::connect) is called on, so that clients
    ///   which were made there work. That runtime has to be driven; where it has ended, or there
    ///   was none, the future runs on a thread of its own, with a runtime.
    /// - It has 5 s to answer, and is asked once at a time. Between attempts to connect there are pauses
    ///   that grow to 1 s.
    /// - An error, a panic and no answer cost that attempt, and are logged as what keeps the process
    ///   from a session; the error of the function is the source of that, and is logged as well: no
    ///   secret belongs in it.
    /// - What the server refuses is not shown to it at each attempt: see [the
    ///   module](super#passwords-that-change).
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

    /// Says on each session what holds the locks of this process, and opens none where another
    /// provider does.
    pub(crate) fn mark(mut self, mark: Mark) -> Self {
        self.mark = Some(mark);
        self
    }

    /// Connects, and checks that locks lock on this server. Logs where the locks are, at `info`, with
    /// `server`, `namespace` and a fingerprint of the secret of names, `name_secret`.
    ///
    /// The connection string is that of libpq; options that cannot be kept are refused by name. As there,
    /// `sslrootcert=system` trusts the authorities of the machine, and means `sslmode=verify-full`. A
    /// build with the feature `tls-rustls-ring-webpki` or `tls-rustls-aws-lc-rs` does not know those: it
    /// trusts the authorities that are built in, and those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    ///
    /// A server on another machine whose certificate is not verified (`sslmode` is not `verify-full` or
    /// `verify-ca`) is a warning, once in a process for each server.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) for what a retry does not change: the
    /// connection string, credentials, the database, rights (with the [lines](super::GRANTS) to run), a
    /// namespace where [`keys`](Self::keys) have none,
    /// TLS, a standby, a proxy that shares sessions, an address that leads to several servers, a server
    /// whose advisory locks lock nothing or that is older than PostgreSQL 14.
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the server is not there, has no
    /// connection left, or does not answer one of the dozen steps of connecting within 5 s, or where
    /// [`credentials`](Self::credentials) gives none. Each says what to do.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a connection whose caller has left is closed.
    pub async fn connect(self) -> Result<PostgresBackend, LockError> {
        let (options, pool) = self.source.read()?;
        check_epoch(self.token_epoch)?;
        let namespace = plain_text::namespace(&self.namespace)?;
        let names = Names {
            namespace: namespace.into(),
            ..self.names
        };
        names.check()?;
        let terms = Terms::new(self.lease)?;
        let instance = Instance::of(&self.instance)?;
        let name = SessionName::new(&self.application_name, &instance)?;
        let instance = name.instance().into();
        warn_unless_verified(&options);
        let server = place(&options);
        let config = Config {
            target: Target::new(options, name, terms, self.mark),
            logins: LoginOptions::new(pool, self.credentials.map(Ask::here)),
            max_held: self.max_held,
            token_epoch: self.token_epoch,
        };
        let (shared, client) = driver::start(config).await?;
        tracing::info!(
            server,
            namespace,
            name_secret = secret_fingerprint(),
            "Distributed locks: PostgreSQL advisory locks (using existing database)"
        );
        Ok(PostgresBackend::new(shared, client, names, instance))
    }
}

impl fmt::Debug for PostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the source, which has the password.
        f.debug_struct("PostgresBuilder")
            .field("lease", &self.lease)
            .field("namespace", &self.namespace)
            .field("keys", &self.names.scheme)
            .field("application_name", &self.application_name)
            .field("instance", &self.instance)
            .field("max_held", &self.max_held)
            .field("token_epoch", &self.token_epoch)
            .finish_non_exhaustive()
    }
}
