//! What can be chosen about a Redis backend.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use ::redis::ConnectionInfo;

use super::RedisBackend;
use super::connection_string::{Target, resp3};
use super::logins::Logins;
use super::settings::{LEASES, Settings, check_lease};
use super::thread;
use super::value::signature;
use crate::credentials::Ask;
use crate::instance::Instance;
use crate::name::secret_fingerprint;
use crate::{Credentials, LockError, plain_text};

/// The lease, unless chosen.
const LEASE: Duration = Duration::from_secs(30);

/// Makes a [`RedisBackend`]; from [`RedisBackend::builder`].
///
/// # Default
///
/// | | |
/// |---|---|
/// | [`lease`](Self::lease) | 30 s |
/// | [`namespace`](Self::namespace) | empty |
/// | [`instance`](Self::instance) | `host:pid` |
/// | [`quarantine`](Self::quarantine) | one lease |
/// | [`allow_eviction`](Self::allow_eviction) | no |
/// | [`replicas`](Self::replicas) | 0 |
/// | [`credentials`](Self::credentials) | those of the connection string |
/// | [`sentinel_credentials`](Self::sentinel_credentials) | those of the connection string |
/// | [`ca_file`](Self::ca_file) | the roots of the machine, or those that are built in |
/// | [`client_certificate`](Self::client_certificate) | none |
#[derive(Clone)]
#[must_use = "a builder does nothing until `connect`"]
pub struct RedisBuilder {
    source: Source,
    lease: Duration,
    namespace: String,
    instance: String,
    quarantine: Option<Duration>,
    allow_eviction: bool,
    replicas: u8,
    credentials: Option<Ask>,
    sentinel_credentials: Option<Credentials>,
    ca_file: Option<PathBuf>,
    client_certificate: Option<(PathBuf, PathBuf)>,
}

/// Where the server is said to be. Without `Debug`: it can hold a password.
#[derive(Clone)]
enum Source {
    Text(String),
    Client(Box<ConnectionInfo>),
}

impl RedisBackend {
    /// Connects with the defaults: `redis://[user][:password@]host[:port][/database]`, `rediss://`,
    /// `valkey://`, `unix:///path`, or `host:6379,password=..,user=..,ssl=true,defaultDatabase=1`; see
    /// [connection strings](super#connection-strings).
    ///
    /// # Errors
    ///
    /// As [`RedisBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is left behind.
    pub async fn connect(connection_string: &str) -> Result<Self, LockError> {
        Self::builder(connection_string).connect().await
    }

    /// Connects to the server of a client that there is, with the defaults and connections of its
    /// own.
    ///
    /// # Errors
    ///
    /// As [`RedisBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is left behind.
    pub async fn from_client(client: &::redis::Client) -> Result<Self, LockError> {
        Self::builder_from_client(client).connect().await
    }

    /// Chooses more than where the server is.
    pub fn builder(connection_string: &str) -> RedisBuilder {
        RedisBuilder::new(Source::Text(connection_string.to_owned()))
    }

    /// Chooses more than the server of a client that there is.
    pub fn builder_from_client(client: &::redis::Client) -> RedisBuilder {
        let info = client.get_connection_info().clone();
        RedisBuilder::new(Source::Client(Box::new(info)))
    }
}

impl RedisBuilder {
    fn new(source: Source) -> Self {
        Self {
            source,
            lease: LEASE,
            namespace: String::new(),
            instance: String::new(),
            quarantine: None,
            allow_eviction: false,
            replicas: 0,
            credentials: None,
            sentinel_credentials: None,
            ca_file: None,
            client_certificate: None,
        }
    }

    /// How long a lock lives without a renewal: how long a crashed holder keeps it, and how long
    /// none is granted after the server lost its memory. From 500 ms to 24 h.
    ///
    /// It has to be the same in all processes that use one namespace of a server. The server keeps the longest and waits
    /// for as long after a restart, whichever process asks. One that has lost its data has lost that as well: until
    /// a process with the longest lease connects, it can grant another what the former still holds. See
    /// [rolling updates](crate::guide::deployment#rolling-updates) for how to change it.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Keeps the locks of two applications on one server apart. [What counts](crate::LockSettings#text)
    /// are its characters, but for blanks at the ends.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// What this process is called in the values of the locks that it holds; see
    /// [`LockSettings::instance`](crate::LockSettings::instance).
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = instance.into();
        self
    }

    /// For how long no lock is granted after the server was restarted, replaced or had its
    /// clock put forward, since locks that it has forgotten may still be held. Zero for tests and
    /// demonstrations: two may then hold one lock for up to a lease after a restart.
    ///
    /// The longest that a process of the namespace has asked for counts for all of them: zero asks for none, and neither
    /// ends nor shortens that of another process.
    pub const fn quarantine(mut self, quarantine: Duration) -> Self {
        self.quarantine = Some(quarantine);
        self
    }

    /// Accepts a server that evicts keys when its memory is full, and with them locks that are
    /// held.
    pub const fn allow_eviction(mut self, allow: bool) -> Self {
        self.allow_eviction = allow;
        self
    }

    /// How many replicas of the server have to know of a lock before it is given out (`WAIT`), so
    /// that it survives the loss of its master. Where they do not within 0.67 s, or a ninth of a
    /// lease shorter than 6 s, the lock is released and the acquire is
    /// [`Unavailable`](crate::LockErrorKind::Unavailable). Costs a round trip to them for each
    /// acquire; renewals and releases are not waited for.
    pub const fn replicas(mut self, replicas: u8) -> Self {
        self.replicas = replicas;
        self
    }

    /// Where user and password come from when they change while the process runs: tokens of IAM, secrets
    /// of a vault, a file that is written anew. Asked for each connection that is made, when the process
    /// connects and when it comes back: two to each node; those that only find out whether the address leads to
    /// one server are made with the same. It goes before what the connection string
    /// says, and what else that says stays.
    ///
    /// ```no_run
    /// # use lock_core::{Credentials, LockError, redis::RedisBackend};
    /// # async fn f() -> Result<(), LockError> {
    /// let backend = RedisBackend::builder("rediss://cache.example")
    ///     .credentials(|| async {
    ///         let secret = tokio::task::spawn_blocking(|| {
    ///             std::fs::read_to_string("/run/secrets/redis")
    ///         });
    ///         Ok::<_, std::io::Error>(Credentials::new("app", secret.await??.trim_end()))
    ///     })
    ///     .connect()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// - Its future runs on the runtime that [`connect`](Self::connect) is called on, so that clients
    ///   which were made there work. That runtime has to be driven; where it has ended, or there
    ///   was none, the future runs on a thread of its own, with a runtime.
    /// - It has 5 s to answer, and is asked once at a time. What led to no connection, since the server is
    ///   gone or the function failed, is used again for a second.
    /// - An error, a panic and no answer cost that attempt, and are logged as what keeps the process
    ///   from a connection. The error of the function is the source of that: no secret belongs in it.
    /// - What the server refuses is not shown to it at each attempt: see [the
    ///   module](super#passwords-that-change).
    pub fn credentials<F, A, E>(mut self, function: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.credentials = Some(Ask::new(function));
        self
    }

    /// User and password for the [Sentinels](super#sentinels), which have none or other ones than the server;
    /// as `sentinelUser=..` and `sentinelPassword=..` in the connection string, which they go before. Those
    /// of the server are never shown to a Sentinel.
    ///
    /// ```no_run
    /// # use lock_core::{Credentials, LockError, redis::RedisBackend};
    /// # async fn f(secret: String) -> Result<(), LockError> {
    /// let backend = RedisBackend::builder("redis+sentinel://s1:26379,s2:26379,s3:26379/mymaster")
    ///     .sentinel_credentials(Credentials::new("app", secret))
    ///     .connect()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn sentinel_credentials(mut self, credentials: Credentials) -> Self {
        self.sentinel_credentials = Some(credentials);
        self
    }

    /// Trusts the authorities in this file alone, in PEM, in place of those of the machine; as
    /// `ssl_ca_certs=FILE` in the connection string. It is read at each connect.
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// Shows this certificate to the server, which may want one of its clients: the files of the
    /// certificate, with those of the authorities between, and of its key without a password, both in
    /// PEM; as `ssl_certfile=FILE` and `ssl_keyfile=FILE` in the connection string. They are read at each
    /// connect, so that a certificate that was renewed is taken without a restart.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.client_certificate = Some((certificate.into(), key.into()));
        self
    }

    /// Connects, and checks that the server can keep locks. Logs where the locks are, at `info`, with
    /// `server`, `namespace` and a fingerprint of the secret of names, `name_secret`.
    ///
    /// A server on another machine that is spoken to without TLS, or whose certificate is not verified,
    /// is a warning, once in a process for each server.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) for a connection string that is
    /// wrong, an address that leads to two masters, a refused password, a server in protected mode, a certificate that is not trusted, files for TLS that cannot be read, a
    /// replica, a Sentinel without the name of its master or with one that it does not know, a server older than 6.2 (7.0 in a cluster), one that evicts keys or lacks a
    /// command, a lease out of bounds; [`Unavailable`](crate::LockErrorKind::Unavailable) when
    /// the server cannot be reached or is loading its data.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is left behind.
    pub async fn connect(self) -> Result<RedisBackend, LockError> {
        let settings = self.settings()?;
        settings.target.warn_unless_verified();
        let (server, namespace) = (settings.target.to_string(), settings.namespace.clone());
        let (shared, client, topology) = thread::start(settings).await?;
        tracing::info!(
            server,
            namespace,
            name_secret = secret_fingerprint(),
            "Distributed locks: Redis provider (high-performance mode)"
        );
        Ok(RedisBackend::new(shared, client, topology))
    }

    pub(super) fn settings(self) -> Result<Settings, LockError> {
        let mut target = match self.source {
            Source::Text(text) => Target::parse(&text)?,
            Source::Client(info) => Target::new(resp3(*info)),
        };
        let certificates = &mut target.certificates;
        certificates.ca_file = self.ca_file.or(certificates.ca_file.take());
        certificates.client = self.client_certificate.or(certificates.client.take());
        target.check()?;
        if let Some(credentials) = self.sentinel_credentials {
            let service = target.service.as_mut().ok_or_else(|| {
                LockError::misconfigured(
                    "credentials of Sentinels are given, and the Redis connection string names no Sentinels",
                )
            })?;
            service.user = credentials.get_user().map(str::to_owned);
            service.password = Some(credentials.get_password().to_owned());
        }
        check_lease(self.lease)?;
        Ok(Settings {
            target,
            lease: self.lease,
            namespace: plain_text::namespace(&self.namespace)?.to_owned(),
            signature: signature(&Instance::of(&self.instance)?),
            quarantine: self.quarantine.unwrap_or(self.lease).min(*LEASES.end()),
            allow_eviction: self.allow_eviction,
            replicas: self.replicas,
            logins: Logins::new(self.credentials.map(Ask::here)),
        })
    }
}

impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder")
            .field("lease", &self.lease)
            .field("namespace", &self.namespace)
            .field("instance", &self.instance)
            .field("quarantine", &self.quarantine)
            .field("allow_eviction", &self.allow_eviction)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}
