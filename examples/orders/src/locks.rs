//! Where the locks live: the one place that knows a backend.

use lock_core::file::FileBackend;
use lock_core::postgres::PostgresBackend;
use lock_core::{LockError, LockProvider};

use crate::config::Config;

/// Opens the backend: the database where one is configured, else a directory. Everything else sees
/// the provider alone.
pub(crate) async fn open(config: &Config) -> Result<LockProvider, LockError> {
    if let Some(url) = &config.database_url {
        let backend = PostgresBackend::connect(url).await?;
        tracing::info!("Distributed locks: PostgreSQL advisory locks (using existing database)");
        return Ok(LockProvider::new(backend));
    }
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
