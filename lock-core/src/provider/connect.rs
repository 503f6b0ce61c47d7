//! A provider from configuration.

use super::{LockProvider, LockProviderBuilder};
use crate::health::Companion;
use crate::registration::Registration;
use crate::settings::{LockSettings, ProviderKind};
use crate::{LockError, name};

/// The backends of this build that configuration can choose.
const BACKENDS: &[Registration] = &[
    #[cfg(feature = "redis")]
    crate::redis::REGISTRATION,
    #[cfg(feature = "postgres")]
    crate::postgres::REGISTRATION,
    #[cfg(feature = "postgres")]
    crate::postgres::TABLE_REGISTRATION,
    #[cfg(feature = "file")]
    crate::file::REGISTRATION,
];

impl LockProvider {
    /// Connects to what the settings choose: Redis if it is given, else PostgreSQL if it is given, else
    /// files of this machine. Logs which, in one line:
    ///
    /// ```text
    /// Distributed locks: Redis provider (high-performance mode)
    /// Distributed locks: PostgreSQL advisory locks (using existing database)
    /// Distributed locks: PostgreSQL lease table TABLE (works behind transaction poolers)
    /// Distributed locks: file locks in DIR (embedded, this machine only)
    /// ```
    ///
    /// The last is a warning. Each has the `server` (but files, whose directory is in the words), the
    /// `namespace`, and a fingerprint of the secret of names, `name_secret`, as fields. A server that is configured and does not hold the locks is part of
    /// [`health`](Self::health); a database is also [where fleets
    /// are told apart](LockSettings#a-database-tells-fleets-apart), which takes one connection to it.
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
    /// a warning; for a lease or a table where the provider has none; for a server whose feature was not compiled
    /// in, which names the feature; for a database in which others say that they lock with another provider, or that can
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
        settings.check_for(kind)?;
        if let Some(secret) = settings.get_name_secret() {
            name::set_name_secret(secret)?;
        }
        // First, since the mark of others ends the start.
        let companions = companions(&settings, kind).await?;
        // `choose` has refused what is not built.
        let backend = registered(kind).ok_or_else(|| {
            LockError::misconfigured(format!("built without the feature `{}`", kind.feature()))
        })?;
        let backend = (backend.connect)(&settings).await?;
        Ok(LockProviderBuilder::new(backend).companions(companions))
    }
}

fn registered(kind: ProviderKind) -> Option<&'static Registration> {
    BACKENDS.iter().find(|backend| backend.kind == kind)
}

/// The servers that are configured and do not hold the locks, which `kind` does.
async fn companions(
    settings: &LockSettings,
    kind: ProviderKind,
) -> Result<Vec<Box<dyn Companion>>, LockError> {
    let mut companions = Vec::new();
    for other in ProviderKind::ALL.into_iter().rev() {
        let Some(variable) = other.variable() else {
            continue;
        };
        // The server that holds the locks needs no other watch, nor two.
        let is_of_locks = kind.variable() == Some(variable);
        if is_of_locks || !other.is_chosen_unnamed() || !settings.has(other) {
            continue;
        }
        match registered(other) {
            Some(Registration {
                companion: Some(connect),
                ..
            }) => companions.extend(connect(settings, kind).await?),
            Some(_) => {}
            None => tracing::warn!(
                "{variable} is set, and `lock-core` was built without its feature `{other}`: that server \
                 is not watched"
            ),
        }
    }
    Ok(companions)
}
