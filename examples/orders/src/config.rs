//! What the environment configures.

use std::env;
use std::path::PathBuf;

/// The configuration of this instance.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) bind: String,
    /// Where the lock files are; `None` for the default directory of the user.
    pub(crate) lock_dir: Option<PathBuf>,
}

impl Config {
    /// Reads `BIND` and `LOCK_DIR`; an empty one counts as absent.
    pub(crate) fn from_env() -> Self {
        let var = |name| env::var_os(name).filter(|value| !value.is_empty());
        let bind = var("BIND").map(|bind| bind.to_string_lossy().into_owned());
        Self {
            bind: bind.unwrap_or_else(|| "127.0.0.1:3000".to_owned()),
            lock_dir: var("LOCK_DIR").map(PathBuf::from),
        }
    }
}
