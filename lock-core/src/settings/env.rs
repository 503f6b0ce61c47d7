//! Settings from the environment.

use std::env;
use std::ffi::OsString;

use super::LockSettings;
use super::parse::{parse_lease, parse_marker, parse_provider, parse_switch};
use crate::{LockError, plain_text};

/// Of all the names that begin with `LOCK_`.
const KNOWN: [&str; 11] = [
    "LOCK_PROVIDER",
    "LOCK_NAMESPACE",
    "LOCK_INSTANCE",
    "LOCK_DIR",
    "LOCK_LEASE",
    "LOCK_TABLE",
    "LOCK_NAME_SECRET",
    "LOCK_SWITCH",
    "LOCK_MARKER",
    // What `dlock run` gives to its command, which can be a service with settings of its own.
    "LOCK_NAME",
    "LOCK_FENCING_TOKEN",
];

/// Names that look like one of ours. No error: another program can have such variables.
pub(super) fn unknown(names: impl Iterator<Item = OsString>) -> impl Iterator<Item = String> {
    names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with("LOCK_") && !KNOWN.contains(&name.as_str()))
}

impl LockSettings {
    /// Reads `DATABASE_URL`, `REDIS_URL`, `LOCK_PROVIDER`, `LOCK_NAMESPACE`, `LOCK_INSTANCE`, `LOCK_DIR`, `LOCK_LEASE`,
    /// `LOCK_TABLE`, `LOCK_NAME_SECRET`, `LOCK_SWITCH` and `LOCK_MARKER`. An empty one counts as absent, and so does
    /// one of blanks; [blanks at the ends](Self#text) do not count. Another one whose name begins with
    /// `LOCK_` is a warning: it may be one of these, misspelt.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured), which names the variable: it is not
    /// UTF-8, has a control character inside, or is not one of the values that it can have. What the servers are is looked at when a
    /// provider is [connected](crate::LockProvider::connect).
    pub fn from_env() -> Result<Self, LockError> {
        for name in unknown(env::vars_os().map(|(name, _)| name)) {
            tracing::warn!("{name} is not a setting of distributed locks; is it misspelt?");
        }
        Self::from_vars(|name| env::var_os(name))
    }

    pub(super) fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, LockError> {
        let text = |name: &str| match var(name).map(OsString::into_string) {
            None => Ok(String::new()),
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(LockError::misconfigured(format!("{name} is not UTF-8"))),
        };
        let mut settings = Self::new()
            .database_url(text("DATABASE_URL")?)
            .redis_url(text("REDIS_URL")?)
            .namespace(text("LOCK_NAMESPACE")?)
            .instance(text("LOCK_INSTANCE")?)
            .dir(var("LOCK_DIR").unwrap_or_default())
            .table(text("LOCK_TABLE")?)
            .name_secret(
                var("LOCK_NAME_SECRET")
                    .unwrap_or_default()
                    .into_encoded_bytes(),
            )
            .allow_switch(parse_switch(&text("LOCK_SWITCH")?)?)
            .require_marker(parse_marker(&text("LOCK_MARKER")?)?);
        settings.lease = parse_lease(&text("LOCK_LEASE")?)?;
        let settings = match parse_provider(&text("LOCK_PROVIDER")?)? {
            Some(provider) => settings.provider(provider),
            None => settings,
        };
        settings.check()?;
        // By hand it can be of random bytes.
        if let Some(secret) = var("LOCK_NAME_SECRET").and_then(|secret| secret.into_string().ok()) {
            plain_text::check(plain_text::trimmed(&secret))
                .map_err(|error| error.in_setting("LOCK_NAME_SECRET"))?;
        }
        Ok(settings)
    }
}
