//! What the environment configures.

use std::env;

use lock_core::{LockError, LockSettings};

/// The configuration of this instance.
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) bind: String,
    /// Where the locks are.
    pub(crate) locks: LockSettings,
    /// The PostgreSQL server that holds the orders; `None` for memory.
    pub(crate) database_url: Option<String>,
    /// The Redis server that holds what was read; `None` for the memory of each instance.
    pub(crate) redis_url: Option<String>,
}

impl Config {
    /// Reads `BIND` and what [`LockSettings::from_env`] reads; blanks around a value do not
    /// count, and an empty one counts as absent.
    pub(crate) fn from_env() -> Result<Self, LockError> {
        let var = |name| {
            let value = env::var(name).ok()?.trim().to_owned();
            (!value.is_empty()).then_some(value)
        };
        // First: it says what is wrong with these variables.
        let mut locks = LockSettings::from_env()?;
        let bind = var("BIND").unwrap_or_else(|| "127.0.0.1:3000".to_owned());
        // What an instance is called is where others send their clients.
        if var("LOCK_INSTANCE").is_none() {
            locks = locks.instance(&bind);
        }
        Ok(Self {
            bind,
            locks,
            database_url: var("DATABASE_URL"),
            redis_url: var("REDIS_URL"),
        })
    }
}
