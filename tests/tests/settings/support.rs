//! Providers over one database.

use std::path::Path;

use lock_core::{LockError, LockProvider, LockSettings, ProviderKind};
use lock_tests::servers::PostgresServer;
use sha2::{Digest, Sha256};
use sqlx::PgPool;

/// Whose locks are in the database.
pub(crate) fn in_postgres(server: &PostgresServer) -> LockSettings {
    LockSettings::new().database_url(server.url())
}

/// Whose locks are in files, beside the database.
pub(crate) fn in_files(server: &PostgresServer, dir: &Path) -> LockSettings {
    in_postgres(server)
        .provider(ProviderKind::File)
        .dir(dir.join("locks"))
}

/// The refusal of a start that finds the mark of another provider.
pub(crate) fn refused(connected: Result<LockProvider, LockError>) -> String {
    let error = connected.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    let said = error.to_string();
    for part in ["DATABASE_URL: ", "LOCK_SWITCH=allow", "LOCK_PROVIDER"] {
        assert!(said.contains(part), "{said}");
    }
    said
}

/// The key of a mark, as it is documented.
pub(crate) fn key_of_mark(provider: &str) -> i64 {
    let digest = Sha256::digest(format!("lock-postgres-v1\0\0provider {provider}"));
    i64::from_be_bytes(digest[..8].try_into().unwrap())
}

/// The sessions that hold the mark of this provider.
pub(crate) async fn markers(pool: &PgPool, provider: &str) -> Vec<i32> {
    let held = sqlx::query_scalar(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted \
         AND mode = 'ShareLock' AND ((classid::int8 << 32) | objid::int8) = $1",
    );
    let held = held.bind(key_of_mark(provider)).fetch_all(pool).await;
    held.unwrap()
}

/// How many they are.
pub(crate) async fn marks(pool: &PgPool, provider: &str) -> usize {
    markers(pool, provider).await.len()
}

/// How many sessions the library has.
pub(crate) async fn sessions(pool: &PgPool) -> i64 {
    let sessions = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^distributed_lock( |$)'",
    );
    sessions.fetch_one(pool).await.unwrap()
}
