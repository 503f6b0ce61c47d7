//! The master that Sentinels are asked for.

use std::fmt;

use super::wrong;
use crate::LockError;

/// What Sentinels are asked for, and as whom. Its `Debug` shows no password.
#[derive(Clone)]
pub(in crate::redis) struct Service {
    /// What the Sentinels call the master and its replicas.
    pub(in crate::redis) master: String,
    pub(in crate::redis) user: Option<String>,
    pub(in crate::redis) password: Option<String>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("master", &self.master)
            .finish_non_exhaustive()
    }
}

/// The name of a master, which has the characters that a Sentinel allows. It is shown in errors and logs.
pub(super) fn check_master(name: &str) -> Result<(), LockError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !name.is_empty() && name.chars().all(is_allowed) {
        return Ok(());
    }
    Err(wrong(
        "the name of its master has other characters than letters, digits, `.`, `-` and `_`",
    ))
}
