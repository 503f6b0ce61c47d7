//! Which backend, where, and what else is configured.

mod env;
mod kind;
mod parse;
mod secret;
#[cfg(feature = "serde")]
mod serde;

use std::path::PathBuf;
use std::time::Duration;

#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) use kind::ELSEWHERE;
pub use kind::ProviderKind;

use self::secret::Secret;
use crate::{LockError, instance, plain_text};

/// What [`LockProvider::connect`](crate::LockProvider::connect) needs to know. From the environment,
/// by hand, or (feature `serde`) from whatever reads an application's configuration.
///
/// | environment | serde | |
/// |---|---|---|
/// | `DATABASE_URL` | `database_url` | the PostgreSQL server, `postgres://user:password@host/database` |
/// | `REDIS_URL` | `redis_url` | the Redis server, or its Sentinels: a URL, or `host:6379,password=..,ssl=true` |
/// | `LOCK_PROVIDER` | `lock_provider` | `postgres`, `postgres-table`, `redis` or `file`: this one, or no start |
/// | `LOCK_NAMESPACE` | `lock_namespace` | keeps the locks of two applications on one server apart |
/// | `LOCK_INSTANCE` | `lock_instance` | what this process is called in the store, for those who ask who holds a lock |
/// | `LOCK_DIR` | `lock_dir` | where the lock files are: a path from the root |
/// | `LOCK_LEASE` | `lock_lease` | how long a frozen or cut off holder keeps its locks on a server: `30s`, `500ms` |
/// | `LOCK_TABLE` | `lock_table` | the table of `postgres-table`: `locks.leases` |
/// | `LOCK_NAME_SECRET` | `lock_name_secret` | the key of `:hashed` values in names |
/// | `LOCK_SWITCH` | `lock_switch` | `allow` during a planned change of the provider |
/// | `LOCK_MARKER` | `lock_marker` | `optional`: a start does not need [the mark](#a-database-tells-fleets-apart) |
///
/// An empty value counts as absent. Redis given, Redis holds the locks; else PostgreSQL given,
/// PostgreSQL does; else files do. All instances of a service need the same settings, and so does `dlock`. A lease
/// or a table is an error where the provider has none. The text of secrets is in no `Debug` and in no error of this
/// library; a format whose errors quote the line that is wrong, as those of TOML, shows what stands there.
///
/// # Text
///
/// Blanks, control characters and invisible characters (such as a byte order mark) at the ends of a
/// value do not count, whichever way it came: `shop` in a file that ends with a newline is `shop`.
/// Inside they are an error, but for plain spaces. A secret of bytes that are no text stays as it is.
///
/// Everything else counts. `Shop` and `shop` are two namespaces, and so are the two spellings of `é` in
/// Unicode, as one character and as two: use ASCII, or normalise. The line that says where the locks
/// are has the `server`, the `namespace` and a fingerprint of the secret, `name_secret`, as fields: two
/// instances that exclude each other show the same.
///
/// # A database tells fleets apart
///
/// Instances that lock in two places do not exclude each other. So each that has a database says in it what
/// holds its locks: by an advisory lock, which is shared by all that say the same, in its namespace. An
/// instance that finds another mark refuses to start. What is compared is the kind of provider, and not
/// which server of that kind.
///
/// With `LOCK_PROVIDER=postgres-table` there may be a pooler in front of the database, which keeps no lock of a
/// session: such an instance has a row in its table instead, with a lease, and looks for the locks of others.
/// Those look into the table `distributed_lock_leases` of each schema that their role may read, and into none of
/// another name: a table that `LOCK_TABLE` puts into another schema is found by its mark if its name stays the same,
/// `locks.distributed_lock_leases`.
///
/// An instance that was cut off from the database, and finds another mark when it is back, was away
/// while an instance started with other settings. It does not stop for good:
///
/// - Whose locks are in PostgreSQL has lost them with its session. It grants none beside those of
///   another provider: acquires are refused or wait, with the reason, for as long as the other mark is
///   there. It looks again every second, and goes on when that is gone; stop the instance with the wrong
///   settings, and nothing else.
/// - Whose locks are in a table of PostgreSQL still has what it holds, and grants nothing more beside those of
///   another provider, in the same way.
/// - Whose locks are in Redis or in files still has them, and goes on. It logs, at `error`, that locks
///   are held in two places, and [`health`](crate::LockProvider::health) says so.
///
/// So the mark finds mistakes, and is no lock itself: an instance that starts with PostgreSQL while all
/// others are cut off from it is not found in time.
///
/// There is no start without the mark: neither where `DATABASE_URL` is not understood, nor where it
/// leads to a pooler that shares sessions or to a standby, which keep no mark. Give a URL that leads to
/// the primary itself. Where there is none, `LOCK_MARKER=optional` on all instances makes of it a
/// warning; the database is then looked at again every minute at least, and the mark is kept as soon
/// as it can be. `LOCK_SWITCH=allow` does the same for as long as it is set. A database that does not
/// answer, or lets no client in, ends the start with either setting: it may have the mark of others. It
/// is [`Unavailable`](crate::LockErrorKind::Unavailable), and over when the database is back.
///
/// Only instances that have the database see the mark: not those of a program that was built without
/// the feature `postgres`, nor those whose `DATABASE_URL` is of another engine, as `mysql://`. Each says
/// so in a warning.
///
/// To move a fleet from one provider to another, set `LOCK_SWITCH=allow` on all its instances, old
/// and new, for as long as both run, and know that they do not exclude each other meanwhile; or stop
/// the old ones first. The mark of one that stopped in order is gone immediately, that of one that
/// vanished within 30 s.
///
/// ```
/// use lock_core::LockSettings;
///
/// let settings = LockSettings::new()
///     .database_url("postgres://app:hunter2@localhost/shop")
///     .namespace("billing");
/// assert!(!format!("{settings:?}").contains("hunter2"));
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "settings do nothing until a provider is connected by them"]
pub struct LockSettings {
    database_url: Option<Secret>,
    redis_url: Option<Secret>,
    provider: Option<ProviderKind>,
    namespace: String,
    instance: String,
    dir: Option<PathBuf>,
    lease: Option<Duration>,
    table: String,
    name_secret: Option<Secret<Vec<u8>>>,
    may_switch: bool,
    is_marker_optional: bool,
    url_from: Option<String>,
}

impl LockSettings {
    /// Nothing is set: files, in the default directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// The PostgreSQL server. Empty counts as absent.
    pub fn database_url(mut self, url: impl Into<String>) -> Self {
        self.database_url = given(&url.into());
        self
    }

    /// The Redis server, in either form of connection string, with the files for TLS as its options
    /// (`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`). Empty counts as absent.
    pub fn redis_url(mut self, url: impl Into<String>) -> Self {
        self.redis_url = given(&url.into());
        self
    }

    /// What holds the locks. That its server is not given is an error then.
    ///
    /// # Default
    ///
    /// Redis if it is given, else PostgreSQL if it is given, else files.
    pub fn provider(mut self, provider: ProviderKind) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Keeps the locks of several applications on one server apart.
    ///
    /// # Default
    ///
    /// Empty.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = plain_text::trimmed(&namespace.into()).to_owned();
        self
    }

    /// What this process is called in the store, beside the locks that it holds: what
    /// [`LockProvider::holder`](crate::LockProvider::holder) and
    /// [`Leader::current`](crate::Leader::current) give in other processes. Where instances ask each other, the
    /// address at which this one is reached.
    ///
    /// 1 to 46 printable ASCII characters, without blanks. All who can look into the store see it, and so do
    /// operators in `pg_stat_activity`: no secret belongs in it. Empty counts as absent.
    ///
    /// # Default
    ///
    /// `host:pid`.
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = plain_text::trimmed(&instance.into()).to_owned();
        self
    }

    /// Where the lock files are: a path that begins at the root. Empty counts as absent.
    ///
    /// # Default
    ///
    /// `FileBackend::default_dir()`, which depends on the user and the session.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        let dir = plain_text::trimmed_path(&dir.into()).to_owned();
        self.dir = Some(dir).filter(|dir| !dir.as_os_str().is_empty());
        self
    }

    /// How long a lock lives on its server without a renewal, which a live process makes every third of this: how long
    /// a holder that is frozen or cut off keeps the others waiting. 1 s to 9 h in PostgreSQL, by sessions and in a
    /// table, 500 ms to 24 h in Redis; files have none.
    ///
    /// It has to be the same in all processes of a namespace, also in `dlock` and in those that use the builder of a
    /// backend. Above all with Redis: a server that has forgotten its locks grants none for the lease of the process
    /// that asks first, and a process with a longer one may still hold a lock then. A session of PostgreSQL that
    /// stands still inside a statement is ended by those that have the same lease.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lock_core::LockSettings;
    ///
    /// let settings = LockSettings::new()
    ///     .redis_url("redis://cache")
    ///     .lease(Duration::from_secs(10));
    /// ```
    ///
    /// # Default
    ///
    /// 30 seconds.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// The table in which [`PostgresTable`](ProviderKind::PostgresTable) has the locks, which may begin with a schema
    /// and a dot: `locks.leases`. The schema has to be there. Processes with different tables do not exclude each
    /// other. Empty counts as absent.
    ///
    /// # Default
    ///
    /// `distributed_lock_leases`, where the `search_path` of the role says.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.table = plain_text::trimmed(&table.into()).to_owned();
        self
    }

    /// The key of `:hashed` values in names, for the whole process: 16 or more random bytes, or text of
    /// as many. Empty counts as absent.
    ///
    /// # Default
    ///
    /// `LOCK_NAME_SECRET`, also where the settings are not from the environment; else there is no key.
    pub fn name_secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        let secret = secret.into();
        let secret = plain_text::secret(&secret);
        self.name_secret = (!secret.is_empty()).then(|| Secret(secret.to_owned()));
        self
    }

    /// What errors call the place of the locks, if its variable is not where it came from: an option of a command
    /// line, or a file. It is the place of the provider that [`provider`](Self::provider) names.
    ///
    /// ```
    /// use lock_core::{LockSettings, ProviderKind};
    ///
    /// let settings = LockSettings::new()
    ///     .redis_url("redis://cache")
    ///     .provider(ProviderKind::Redis)
    ///     .url_from("--url");
    /// ```
    ///
    /// # Default
    ///
    /// `REDIS_URL`, `DATABASE_URL` or `LOCK_DIR`.
    pub fn url_from(mut self, place: impl Into<String>) -> Self {
        self.url_from = Some(place.into());
        self
    }

    /// Whether to start also where the database is marked for another provider.
    ///
    /// # Default
    ///
    /// `false`.
    pub fn allow_switch(mut self, allow: bool) -> Self {
        self.may_switch = allow;
        self
    }

    /// Whether to start only where the database of [`database_url`](Self::database_url) keeps [the
    /// mark](Self#a-database-tells-fleets-apart) by which instances with another provider are found.
    ///
    /// # Default
    ///
    /// `true`.
    pub fn require_marker(mut self, require: bool) -> Self {
        self.is_marker_optional = !require;
        self
    }

    /// Refuses what does not belong inside of a value.
    pub(crate) fn check(&self) -> Result<(), LockError> {
        let dir = self.dir.as_ref().map(|dir| dir.to_string_lossy());
        for (name, text) in [
            (self.place("DATABASE_URL"), self.get_database_url()),
            (self.place("REDIS_URL"), self.get_redis_url()),
            ("LOCK_NAMESPACE", Some(&*self.namespace)),
            (self.place("LOCK_DIR"), dir.as_deref()),
            ("LOCK_TABLE", Some(&*self.table)),
        ] {
            plain_text::check(text.unwrap_or_default()).map_err(|error| error.in_setting(name))?;
        }
        instance::check(&self.instance).map_err(|error| error.in_setting("LOCK_INSTANCE"))?;
        if self.dir.as_ref().is_some_and(|dir| dir.is_relative()) {
            return Err(LockError::misconfigured(
                "LOCK_DIR: the path is relative, and so another directory for each process that was started elsewhere; \
                 give one that begins at the root",
            ));
        }
        Ok(())
    }

    /// What holds the locks.
    pub(crate) fn choose(&self) -> Result<ProviderKind, LockError> {
        let is_given = |kind: &ProviderKind| kind.is_chosen_unnamed() && self.has(*kind);
        let kind = match self.provider {
            Some(kind) => kind,
            None => ProviderKind::ALL
                .into_iter()
                .find(is_given)
                .unwrap_or(ProviderKind::File),
        };
        let because = match kind.variable() {
            Some(variable) if !self.has(kind) => {
                return Err(LockError::misconfigured(format!(
                    "LOCK_PROVIDER is `{kind}`, and {variable} is not set; set it, or choose another \
                     provider"
                )));
            }
            Some(variable) => format!("{variable} is set"),
            None if self.provider.is_some() => format!("LOCK_PROVIDER is `{kind}`"),
            None => "neither REDIS_URL nor DATABASE_URL is set".to_owned(),
        };
        if kind.is_built() {
            return Ok(kind);
        }
        Err(LockError::misconfigured(format!(
            "{because}, and `lock-core` was built without its feature `{}`: enable it, or choose \
             another provider by LOCK_PROVIDER",
            kind.feature()
        )))
    }

    /// Refuses what this provider does not have: the locks would not be as the setting says.
    pub(crate) fn check_for(&self, kind: ProviderKind) -> Result<(), LockError> {
        if self.lease.is_some() && !kind.has_lease() {
            return Err(LockError::misconfigured(format!(
                "LOCK_LEASE: the provider `{kind}` has no lease, since its locks last as long as \
                 their process; remove the setting, or choose another provider by LOCK_PROVIDER"
            )));
        }
        if !self.table.is_empty() && !kind.has_table() {
            return Err(LockError::misconfigured(format!(
                "LOCK_TABLE: the provider `{kind}` has no table; remove the setting, or set \
                 LOCK_PROVIDER=postgres-table"
            )));
        }
        Ok(())
    }

    /// Whether the server of this kind is configured.
    pub(crate) fn has(&self, kind: ProviderKind) -> bool {
        match kind {
            ProviderKind::Redis => self.redis_url.is_some(),
            ProviderKind::Postgres | ProviderKind::PostgresTable => self.database_url.is_some(),
            ProviderKind::File => false,
        }
    }

    /// What errors call what this variable says.
    pub(crate) fn place<'s>(&'s self, variable: &'s str) -> &'s str {
        let named = self
            .provider
            .map(|kind| kind.variable().unwrap_or("LOCK_DIR"));
        match &self.url_from {
            Some(place) if named == Some(variable) => place,
            _ => variable,
        }
    }

    pub(crate) fn get_database_url(&self) -> Option<&str> {
        self.database_url.as_ref().map(|url| url.0.as_str())
    }

    pub(crate) fn get_redis_url(&self) -> Option<&str> {
        self.redis_url.as_ref().map(|url| url.0.as_str())
    }

    #[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
    pub(crate) fn get_namespace(&self) -> &str {
        &self.namespace
    }

    #[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
    pub(crate) fn get_instance(&self) -> &str {
        &self.instance
    }

    #[cfg(feature = "file")]
    pub(crate) fn get_dir(&self) -> Option<&std::path::Path> {
        self.dir.as_deref()
    }

    /// The lease, if one was chosen; `check` says which the backend can have.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) fn get_lease<T>(
        &self,
        check: impl FnOnce(Duration) -> Result<T, LockError>,
    ) -> Result<Option<Duration>, LockError> {
        let Some(lease) = self.lease else {
            return Ok(None);
        };
        check(lease).map_err(|error| error.in_setting("LOCK_LEASE"))?;
        Ok(Some(lease))
    }

    /// The table of leases, if one was chosen; `check` says whether it can be one.
    #[cfg(feature = "postgres")]
    pub(crate) fn get_table<T>(
        &self,
        check: impl FnOnce(&str) -> Result<T, LockError>,
    ) -> Result<Option<&str>, LockError> {
        if self.table.is_empty() {
            return Ok(None);
        }
        check(&self.table).map_err(|error| error.in_setting("LOCK_TABLE"))?;
        Ok(Some(self.table.as_str()))
    }

    pub(crate) fn get_name_secret(&self) -> Option<&[u8]> {
        self.name_secret.as_ref().map(|secret| secret.0.as_slice())
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn may_switch(&self) -> bool {
        self.may_switch
    }

    /// Whether a start needs no mark.
    #[cfg(feature = "postgres")]
    pub(crate) fn goes_unmarked(&self) -> bool {
        self.may_switch || self.is_marker_optional
    }
}

fn given(text: &str) -> Option<Secret> {
    let text = plain_text::trimmed(text);
    (!text.is_empty()).then(|| Secret(text.to_owned()))
}

#[cfg(all(test, feature = "postgres", feature = "redis"))]
mod planted;
#[cfg(test)]
mod tests;
