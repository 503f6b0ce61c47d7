//! What the environment configures.

use std::env;

use lock_core::{LockError, LockSettings};

/// The configuration of this instance.
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) bind: String,
    /// Where the locks are.
    pub(crate) locks: LockSettings,
}

impl Config {
    /// Reads `BIND` and what [`LockSettings::from_env`] reads; an empty one counts as absent.
    pub(crate) fn from_env() -> Result<Self, LockError> {
        let bind = env::var("BIND").ok().filter(|bind| !bind.is_empty());
        Ok(Self {
            bind: bind.unwrap_or_else(|| "127.0.0.1:3000".to_owned()),
            locks: LockSettings::from_env()?,
        })
    }
}
