//! Providers over one database.

use std::path::Path;
use std::time::Duration;

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

/// Two providers have one lock of this name.
pub(crate) async fn exclude(one: &LockProvider, other: &LockProvider, name: &str) {
    // Less than the quarantine of a new Redis server.
    let wait = Duration::from_secs(20);
    let guard = one.lock(name).unwrap().acquire(wait).await.unwrap();
    let held = other.lock(name).unwrap().try_acquire(Duration::ZERO).await;
    assert!(held.unwrap().is_none(), "two hold one lock");
    guard.release().await.unwrap();
}

/// The key that a session holds for a text, as it is documented.
pub(crate) fn key_of(text: &str) -> i64 {
    let digest = Sha256::digest(format!("lock-postgres-v1\0\0{text}"));
    i64::from_be_bytes(digest[..8].try_into().unwrap())
}

/// The key of a mark.
pub(crate) fn key_of_mark(provider: &str) -> i64 {
    key_of(&format!("provider {provider}"))
}

/// The sessions that hold the mark of this provider.
pub(crate) async fn markers(pool: &PgPool, provider: &str) -> Vec<i32> {
    sharing(pool, key_of_mark(provider)).await
}

/// The sessions that hold this key together.
pub(crate) async fn sharing(pool: &PgPool, key: i64) -> Vec<i32> {
    let held = sqlx::query_scalar(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted \
         AND mode = 'ShareLock' AND ((classid::int8 << 32) | objid::int8) = $1",
    );
    let held = held.bind(key).fetch_all(pool).await;
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
