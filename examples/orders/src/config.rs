//! What the environment configures.

use std::env;
use std::path::PathBuf;

/// The configuration of this instance.
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) bind: String,
    /// Where the lock files are; `None` for the default directory of the user.
    pub(crate) lock_dir: Option<PathBuf>,
    /// The PostgreSQL server that holds the orders and the locks; `None` for memory and files.
    pub(crate) database_url: Option<String>,
    /// The Redis server that holds what was read; `None` for the memory of each instance.
    pub(crate) redis_url: Option<String>,
}

impl Config {
    /// Reads `BIND`, `LOCK_DIR`, `DATABASE_URL` and `REDIS_URL`; an empty one counts as absent.
    pub(crate) fn from_env() -> Self {
        let var = |name| env::var_os(name).filter(|value| !value.is_empty());
        let text = |name| var(name).map(|value| value.to_string_lossy().into_owned());
        Self {
            bind: text("BIND").unwrap_or_else(|| "127.0.0.1:3000".to_owned()),
            lock_dir: var("LOCK_DIR").map(PathBuf::from),
            database_url: text("DATABASE_URL"),
            redis_url: text("REDIS_URL"),
        }
    }
}
