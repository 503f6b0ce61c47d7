//! Settings from the environment.

use std::env;
use std::ffi::OsString;

use super::{LockSettings, parse_provider, parse_switch};
use crate::LockError;

impl LockSettings {
    /// Reads `DATABASE_URL`, `REDIS_URL`, `LOCK_PROVIDER`, `LOCK_NAMESPACE`, `LOCK_DIR`,
    /// `LOCK_NAME_SECRET` and `LOCK_SWITCH`. An empty one counts as absent.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured), which names the variable: it is not
    /// UTF-8, or not one of the values that it can have. What the servers are is looked at when a
    /// provider is [connected](crate::LockProvider::connect).
    pub fn from_env() -> Result<Self, LockError> {
        Self::from_vars(|name| env::var_os(name))
    }

    pub(super) fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, LockError> {
        let text = |name: &str| match var(name).map(OsString::into_string) {
            None => Ok(String::new()),
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(LockError::misconfigured(format!("{name} is not UTF-8"))),
        };
        let settings = Self::new()
            .database_url(text("DATABASE_URL")?)
            .redis_url(text("REDIS_URL")?)
            .namespace(text("LOCK_NAMESPACE")?)
            .dir(var("LOCK_DIR").unwrap_or_default())
            .name_secret(
                var("LOCK_NAME_SECRET")
                    .unwrap_or_default()
                    .into_encoded_bytes(),
            )
            .allow_switch(parse_switch(&text("LOCK_SWITCH")?)?);
        Ok(match parse_provider(&text("LOCK_PROVIDER")?)? {
            Some(provider) => settings.provider(provider),
            None => settings,
        })
    }
}
