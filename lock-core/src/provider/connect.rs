//! A provider from configuration.

use super::{LockProvider, LockProviderBuilder};
use crate::health::Beside;
use crate::settings::{LockSettings, ProviderKind};
use crate::{LockError, name};

impl LockProvider {
    /// Connects to what the settings choose: Redis if it is given, else PostgreSQL if it is given, else
    /// files of this machine. Logs which, in one line:
    ///
    /// ```text
    /// Distributed locks: Redis provider (high-performance mode)
    /// Distributed locks: PostgreSQL advisory locks (using existing database)
    /// Distributed locks: file locks in DIR (embedded, this machine only)
    /// ```
    ///
    /// The last is a warning. Each has the `server` (but files, whose directory is in the words), the
    /// `namespace`, and a fingerprint of the secret of names, `name_secret`, as fields. A server that is configured and does not hold the locks is part of
    /// [`health`](Self::health); a database is also [where fleets are told
    /// apart](LockSettings#a-database-tells-fleets-apart), which takes one connection to it.
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, LockSettings};
    /// # async fn f() -> Result<(), LockError> {
    /// let locks = LockProvider::connect(LockSettings::from_env()?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// [`LockProviderBuilder::connect`] is the same with options.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) for a setting that is wrong, which names
    /// it (and never its secret), unless it is a `REDIS_URL` that the locks do not need: that is
    /// a warning; for a server whose feature was not compiled in, which names the
    /// feature; for a database in which others say that they lock with another provider, or that can
    /// keep no mark of ours, unless [`LOCK_MARKER`](LockSettings#a-database-tells-fleets-apart) allows
    /// that.
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when a server does not answer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was connected is closed.
    pub async fn connect(settings: LockSettings) -> Result<Self, LockError> {
        Ok(LockProviderBuilder::connect(settings).await?.build())
    }
}

impl LockProviderBuilder {
    /// Begins a provider with options over what the settings choose; see [`LockProvider::connect`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProviderBuilder, LockSettings};
    /// # async fn f() -> Result<(), LockError> {
    /// let builder = LockProviderBuilder::connect(LockSettings::from_env()?).await?;
    /// let locks = builder.response_timeout(Duration::from_millis(500)).build();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`LockProvider::connect`].
    ///
    /// # Cancel safety
    ///
    /// As [`LockProvider::connect`].
    pub async fn connect(settings: LockSettings) -> Result<Self, LockError> {
        settings.check()?;
        let kind = settings.choose()?;
        if let Some(secret) = settings.get_name_secret() {
            name::set_name_secret(secret)?;
        }
        // First, since the mark of others ends the start.
        let beside = beside(&settings, kind).await?;
        match kind {
            ProviderKind::Redis => redis(&settings, beside).await,
            ProviderKind::Postgres => postgres(&settings, beside).await,
            ProviderKind::File => file(&settings, beside),
        }
    }

    #[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
    fn over(backend: impl crate::backend::Backend, beside: Vec<Box<dyn Beside>>) -> Self {
        LockProvider::builder(backend).beside(beside)
    }
}

/// The servers that do not hold the locks.
async fn beside(
    settings: &LockSettings,
    kind: ProviderKind,
) -> Result<Vec<Box<dyn Beside>>, LockError> {
    let database = match settings.get_database_url() {
        Some(url) if kind != ProviderKind::Postgres => database(url, settings, kind).await?,
        _ => None,
    };
    let cache = match settings.get_redis_url() {
        Some(text) if kind != ProviderKind::Redis => cache(text),
        _ => None,
    };
    Ok(database.into_iter().chain(cache).collect())
}

#[cfg(feature = "postgres")]
async fn database(
    url: &str,
    settings: &LockSettings,
    kind: ProviderKind,
) -> Result<Option<Box<dyn Beside>>, LockError> {
    use crate::postgres::{DatabaseBeside, other_engine, parse_url, unmarked};

    let options = match parse_url(url) {
        Ok(options) => options,
        // No instance has its locks there.
        Err(error) if settings.goes_unmarked() || other_engine(url).is_some() => {
            not_understood(&error, "DATABASE_URL");
            return Ok(None);
        }
        Err(error) => return Err(unmarked(error).in_setting("DATABASE_URL")),
    };
    let mark = mark(settings, kind);
    let opened = DatabaseBeside::open(options, mark, !settings.goes_unmarked()).await;
    let opened = opened.map_err(|error| error.in_setting("DATABASE_URL"))?;
    Ok(Some(Box::new(opened)))
}

#[cfg(not(feature = "postgres"))]
async fn database(
    _: &str,
    _: &LockSettings,
    _: ProviderKind,
) -> Result<Option<Box<dyn Beside>>, LockError> {
    unwatched("DATABASE_URL", "postgres");
    Ok(None)
}

#[cfg(feature = "redis")]
fn cache(text: &str) -> Option<Box<dyn Beside>> {
    match crate::redis::RedisBeside::new(text) {
        Ok(redis) => Some(Box::new(redis)),
        Err(error) => {
            not_understood(&error, "REDIS_URL");
            None
        }
    }
}

#[cfg(not(feature = "redis"))]
fn cache(_: &str) -> Option<Box<dyn Beside>> {
    unwatched("REDIS_URL", "redis");
    None
}

/// The variable can be about a server of another engine, which the service has and the locks do not
/// need. The errors of connection strings do not repeat them.
#[cfg(any(feature = "postgres", feature = "redis"))]
fn not_understood(error: &LockError, variable: &str) {
    tracing::warn!(
        %error,
        "{variable} is not understood; the locks do not need that server, and it is not watched"
    );
}

#[cfg(not(all(feature = "postgres", feature = "redis")))]
fn unwatched(variable: &str, feature: &str) {
    tracing::warn!(
        "{variable} is set, and `lock-core` was built without its feature `{feature}`: that server is \
         not watched"
    );
}

#[cfg(feature = "postgres")]
fn mark(settings: &LockSettings, kind: ProviderKind) -> crate::postgres::Mark {
    crate::postgres::Mark::new(settings.get_namespace(), kind, settings.may_switch())
}

#[cfg(feature = "redis")]
async fn redis(
    settings: &LockSettings,
    beside: Vec<Box<dyn Beside>>,
) -> Result<LockProviderBuilder, LockError> {
    let builder = crate::redis::RedisBackend::builder(settings.get_redis_url().unwrap_or_default())
        .namespace(settings.get_namespace());
    let connected = builder.connect().await;
    let backend = connected.map_err(|error| error.in_setting("REDIS_URL"))?;
    Ok(LockProviderBuilder::over(backend, beside))
}

#[cfg(feature = "postgres")]
async fn postgres(
    settings: &LockSettings,
    beside: Vec<Box<dyn Beside>>,
) -> Result<LockProviderBuilder, LockError> {
    let url = settings.get_database_url().unwrap_or_default();
    let builder = crate::postgres::PostgresBackend::builder(url)
        .namespace(settings.get_namespace())
        .mark(mark(settings, ProviderKind::Postgres));
    let connected = builder.connect().await;
    let backend = connected.map_err(|error| error.in_setting("DATABASE_URL"))?;
    Ok(LockProviderBuilder::over(backend, beside))
}

#[cfg(feature = "file")]
fn file(
    settings: &LockSettings,
    beside: Vec<Box<dyn Beside>>,
) -> Result<LockProviderBuilder, LockError> {
    use crate::file::FileBackend;

    let dir = settings.get_dir();
    let builder = match dir {
        Some(dir) => FileBackend::builder(dir),
        None => FileBackend::builder(FileBackend::default_dir()),
    };
    let opened = builder.namespace(settings.get_namespace()).open();
    let backend = opened.map_err(|error| match dir {
        Some(_) => error.in_setting("LOCK_DIR"),
        None => error,
    })?;
    // A warning: instances on other machines, or with another directory, are not excluded.
    tracing::warn!(
        namespace = settings.get_namespace(),
        name_secret = name::secret_fingerprint(),
        "Distributed locks: file locks in {} (embedded, this machine only)",
        backend.directory().display()
    );
    Ok(LockProviderBuilder::over(backend, beside))
}

// `LockSettings::choose` refuses what is not compiled in.

#[cfg(not(feature = "redis"))]
async fn redis(
    _: &LockSettings,
    _: Vec<Box<dyn Beside>>,
) -> Result<LockProviderBuilder, LockError> {
    Err(LockError::misconfigured(
        "built without the feature `redis`",
    ))
}

#[cfg(not(feature = "postgres"))]
async fn postgres(
    _: &LockSettings,
    _: Vec<Box<dyn Beside>>,
) -> Result<LockProviderBuilder, LockError> {
    Err(LockError::misconfigured(
        "built without the feature `postgres`",
    ))
}

#[cfg(not(feature = "file"))]
fn file(_: &LockSettings, _: Vec<Box<dyn Beside>>) -> Result<LockProviderBuilder, LockError> {
    Err(LockError::misconfigured("built without the feature `file`"))
}
