//! Where the locks live: the one place that knows a backend.

use lock_core::file::FileBackend;
use lock_core::{LockError, LockProvider};

use crate::config::Config;

/// Opens the backend. Everything else sees the provider alone, so that another backend is another
/// body of this function.
pub(crate) fn open(config: &Config) -> Result<LockProvider, LockError> {
    let dir = config
        .lock_dir
        .clone()
        .unwrap_or_else(FileBackend::default_dir);
    let backend = FileBackend::open(&dir)?;
    // A warning: instances on other machines, or with another directory, are not excluded.
    tracing::warn!(
        "Distributed locks: file locks in {} (embedded, this machine only)",
        dir.display()
    );
    Ok(LockProvider::new(backend))
}
