//! Which backend, where, and what else is configured.

mod env;
mod kind;
mod secret;
#[cfg(feature = "serde")]
mod serde;

use std::path::PathBuf;

pub use kind::ProviderKind;

use self::secret::Secret;
use crate::LockError;

/// What [`LockProvider::connect`](crate::LockProvider::connect) needs to know. From the environment,
/// by hand, or (feature `serde`) from whatever reads an application's configuration.
///
/// | environment | serde | |
/// |---|---|---|
/// | `DATABASE_URL` | `database_url` | the PostgreSQL server, `postgres://user:password@host/database` |
/// | `REDIS_URL` | `redis_url` | the Redis server: a URL, or `host:6379,password=..,ssl=true` |
/// | `LOCK_PROVIDER` | `lock_provider` | `postgres`, `redis` or `file`: this one, or no start |
/// | `LOCK_NAMESPACE` | `lock_namespace` | keeps the locks of two applications on one server apart |
/// | `LOCK_DIR` | `lock_dir` | where the lock files are |
/// | `LOCK_NAME_SECRET` | `lock_name_secret` | the key of `:hashed` values in names |
/// | `LOCK_SWITCH` | `lock_switch` | `allow` during a planned change of the provider |
///
/// A URL that is of no such server is an error where that is to hold the locks, else a warning. An
/// empty value counts as absent. Redis given, Redis holds the locks; else PostgreSQL given,
/// PostgreSQL does; else files do. All instances of a service need the same settings. The text of
/// secrets is in no `Debug` and in no error.
///
/// # A database tells fleets apart
///
/// Instances that lock in two places exclude nobody. So each that has a database says in it what
/// holds its locks: by an advisory lock, which is shared by all that say the same, in its namespace. An
/// instance that finds another mark refuses to start. What is compared is the kind of provider, and not
/// which server of that kind.
///
/// An instance that was cut off from the database, and finds another mark when it is back, was away
/// while somebody started with other settings. It does not stop for good:
///
/// - Whose locks are in PostgreSQL has lost them with its session. It grants none beside those of
///   another provider: acquires are refused or wait, with the reason, for as long as the other mark is
///   there. It looks again every second, and goes on when that is gone; stop the instance with the wrong
///   settings, and nothing else.
/// - Whose locks are in Redis or in files still has them, and goes on. It logs, at `error`, that locks
///   are held in two places, and [`health`](crate::LockProvider::health) says so.
///
/// So the mark finds mistakes, and is no lock itself: who starts with PostgreSQL while all others are
/// cut off from it is not found in time. A way to the database that can keep no mark, through a pooler
/// that shares sessions or to a standby, is a warning; it is looked at again every minute at least.
///
/// To move a fleet from one provider to another, set `LOCK_SWITCH=allow` on all its instances, old
/// and new, for as long as both run, and know that they do not exclude each other meanwhile; or stop
/// the old ones first. The mark of one that stopped in order is gone at once, that of one that
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
    dir: Option<PathBuf>,
    name_secret: Option<Secret<Vec<u8>>>,
    may_switch: bool,
}

impl LockSettings {
    /// Nothing is set: files, in the default directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// The PostgreSQL server. Empty counts as absent.
    pub fn database_url(mut self, url: impl Into<String>) -> Self {
        self.database_url = given(url.into());
        self
    }

    /// The Redis server, in either form of connection string. Empty counts as absent.
    pub fn redis_url(mut self, url: impl Into<String>) -> Self {
        self.redis_url = given(url.into());
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
        self.namespace = namespace.into();
        self
    }

    /// Where the lock files are. Empty counts as absent.
    ///
    /// # Default
    ///
    /// `FileBackend::default_dir()`, which depends on the user and the session.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into()).filter(|dir| !dir.as_os_str().is_empty());
        self
    }

    /// The key of `:hashed` values in names, for the whole process. Empty counts as absent.
    ///
    /// # Default
    ///
    /// `LOCK_NAME_SECRET`, also where the settings are not from the environment; else there is no key.
    pub fn name_secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        let secret = secret.into();
        self.name_secret = (!secret.is_empty()).then_some(Secret(secret));
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

    /// What holds the locks.
    pub(crate) fn choose(&self) -> Result<ProviderKind, LockError> {
        let redis = self.redis_url.as_ref().map(|_| ProviderKind::Redis);
        let postgres = self.database_url.as_ref().map(|_| ProviderKind::Postgres);
        let kind = match self.provider {
            Some(ProviderKind::File) => ProviderKind::File,
            Some(ProviderKind::Redis) => redis.ok_or_else(|| absent("redis", "REDIS_URL"))?,
            Some(ProviderKind::Postgres) => {
                postgres.ok_or_else(|| absent("postgres", "DATABASE_URL"))?
            }
            None => redis.or(postgres).unwrap_or(ProviderKind::File),
        };
        let (is_built, because) = match kind {
            ProviderKind::Redis => (cfg!(feature = "redis"), "REDIS_URL is set"),
            ProviderKind::Postgres => (cfg!(feature = "postgres"), "DATABASE_URL is set"),
            ProviderKind::File if self.provider.is_some() => {
                (cfg!(feature = "file"), "LOCK_PROVIDER is `file`")
            }
            ProviderKind::File => (
                cfg!(feature = "file"),
                "neither REDIS_URL nor DATABASE_URL is set",
            ),
        };
        if is_built {
            return Ok(kind);
        }
        Err(LockError::misconfigured(format!(
            "{because}, and `lock-core` was built without its feature `{kind}`: enable it, or choose \
             another provider by LOCK_PROVIDER"
        )))
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

    #[cfg(feature = "file")]
    pub(crate) fn get_dir(&self) -> Option<&std::path::Path> {
        self.dir.as_deref()
    }

    pub(crate) fn get_name_secret(&self) -> Option<&[u8]> {
        self.name_secret.as_ref().map(|secret| secret.0.as_slice())
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn may_switch(&self) -> bool {
        self.may_switch
    }
}

fn given(text: String) -> Option<Secret> {
    (!text.trim().is_empty()).then_some(Secret(text))
}

fn absent(provider: &str, variable: &str) -> LockError {
    LockError::misconfigured(format!(
        "LOCK_PROVIDER is `{provider}`, and {variable} is not set; set it, or choose another provider"
    ))
}

/// The value of `LOCK_PROVIDER`.
fn parse_provider(text: &str) -> Result<Option<ProviderKind>, LockError> {
    match text.trim() {
        "" => Ok(None),
        text => match text.parse() {
            Ok(kind) => Ok(Some(kind)),
            Err(error) => Err(LockError::in_setting(error, "LOCK_PROVIDER")),
        },
    }
}

/// The value of `LOCK_SWITCH`.
fn parse_switch(text: &str) -> Result<bool, LockError> {
    match text.trim() {
        "" => Ok(false),
        "allow" => Ok(true),
        _ => Err(LockError::misconfigured(
            "LOCK_SWITCH: it is neither empty nor `allow`",
        )),
    }
}

#[cfg(test)]
mod tests;
