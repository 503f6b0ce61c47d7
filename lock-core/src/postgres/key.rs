//! Advisory lock keys. The form is versioned and frozen: programs of different versions meet at the same
//! keys.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::LockName;

/// Before what makes the keys of a PostgreSQL lock. Part of every key: never to be changed.
const PREFIX: &[u8] = b"lock-postgres-v1\0";

/// Releases a lock that another program holds by its [key](advisory_key), `$1`, and notifies the waiters of
/// this library. True where that session held it.
///
/// `pg_advisory_unlock` alone releases as well: then waiters find the lock free within some tenths of a
/// second. Each call notifies, whether a process waits or not: for more than some hundred releases a second,
/// do without.
pub const UNLOCK_AND_NOTIFY: &str = "SELECT CASE WHEN pg_catalog.pg_advisory_unlock($1) \
     THEN pg_catalog.pg_notify('distributed_lock', pg_catalog.to_hex($1))::text IS NOT NULL ELSE false END";

/// The advisory lock key of a name in no namespace, for programs that take the lock without this library.
///
/// Its form does not change: the first 64 bits, big-endian and signed, of SHA-256 over
/// `"lock-postgres-v1" NUL namespace NUL name`. A backend gives the key that it uses itself by
/// [`PostgresBackend::advisory_key`](super::PostgresBackend::advisory_key).
///
/// What another program does with it, each in a session of its own (behind a pooler in transaction mode only
/// the last):
///
/// | | |
/// | --- | --- |
/// | try | `SELECT pg_try_advisory_lock($1)`: whether it got the lock |
/// | wait | `SET lock_timeout = '5s'; SELECT pg_advisory_lock($1)`: error 55P03 when the time is over |
/// | release | [`UNLOCK_AND_NOTIFY`], or `SELECT pg_advisory_unlock($1)` |
/// | for a transaction | `SELECT pg_advisory_xact_lock($1)`: released by COMMIT and ROLLBACK |
///
/// With `tokio-postgres`:
///
/// ```no_run
/// use lock_core::{LockName, postgres};
///
/// # async fn f(client: &tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let key = postgres::advisory_key(&LockName::new("order", "process", 42)?);
/// let tried = client.query_one("SELECT pg_try_advisory_lock($1)", &[&key]).await?;
/// if tried.get(0) {
///     // .. no guard of this lock is valid meanwhile ..
///     client.query_one(postgres::UNLOCK_AND_NOTIFY, &[&key]).await?;
/// }
/// # Ok(()) }
/// ```
///
/// Such a lock excludes guards, and guards exclude it. What a guard has besides, it has not:
///
/// - It ends with its session, and there is no lease: the lock of a program that is frozen or cut off stays
///   until the server ends the connection. `SET idle_session_timeout` bounds that.
/// - The program does not learn that its session has ended before its next statement, and has no
///   fencing token: a [`Fence`](super::Fence) does not stop what it writes late.
/// - Its session can take the lock again: two calls need two releases, and two tasks that share a
///   session do not exclude each other.
/// - One that waits in the server is granted the lock by the release of a guard, before waiters of this
///   library.
#[must_use]
pub fn advisory_key(name: &LockName) -> i64 {
    advisory_key_in("", name)
}

/// [`advisory_key`] of a name in a [namespace](super::PostgresBuilder::namespace), which has no blanks at its
/// ends.
#[must_use]
pub fn advisory_key_in(namespace: &str, name: &LockName) -> i64 {
    Keys::new(namespace, name.as_str()).lock
}

/// The key of an advisory lock, in one of the two forms that PostgreSQL has. They are apart: a pair and a
/// bigint of the same bits are two locks.
///
/// `Display` gives it as arguments in SQL:
///
/// ```
/// use lock_core::postgres::AdvisoryKey;
///
/// let sql = format!("SELECT pg_try_advisory_lock({})", AdvisoryKey::Pair(3, -1));
/// assert_eq!(sql, "SELECT pg_try_advisory_lock('3'::integer, '-1'::integer)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdvisoryKey {
    /// `pg_try_advisory_lock(bigint)`. In `pg_locks`, `classid` is the upper half, `objid` the lower
    /// half, `objsubid` 1.
    Bigint(i64),
    /// `pg_try_advisory_lock(integer, integer)`. In `pg_locks`, they are `classid` and `objid`, and
    /// `objsubid` is 2.
    Pair(i32, i32),
}

impl fmt::Display for AdvisoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In quotes: a minus before digits is an operator, and of the least number no bigint.
        match self {
            Self::Bigint(key) => write!(f, "'{key}'::bigint"),
            Self::Pair(high, low) => write!(f, "'{high}'::integer, '{low}'::integer"),
        }
    }
}

/// The advisory lock keys of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Keys {
    /// Held exclusively by the holder of the lock.
    pub(super) lock: i64,
    /// Whether that is two keys of 32 bits, the upper half and the lower half.
    pub(super) is_pair: bool,
    /// Held shared by every session that waits for it.
    pub(super) wait: i64,
    /// Held by a session that waits for it exclusively while readers hold it: see [`WANTED`].
    pub(super) want: i64,
}

/// The lower half (`objid`) of each key that keeps readers out while a writer waits. By that it is told from the
/// keys of locks where they are listed. The upper half is of the name; of names that share one, a writer that waits
/// for one keeps readers from the others as well for that time.
pub(super) const WANTED: i64 = 0x5741_4e54;

/// The advisory lock key that a session holds shared when it waits for more names than it registers
/// one by one: as the key of a lock, over the text `everything`, which is no name.
pub(super) const EVERYTHING: i64 = -5_868_215_282_407_828_218;

/// The advisory lock key that sessions with a lease of so many milliseconds hold shared: as the key
/// of a lock, over the text `lease SPACE MILLISECONDS`, which is no name.
pub(super) fn lease_key(lease_ms: u64) -> i64 {
    Keys::new("", &format!("lease {lease_ms}")).lock
}

/// The advisory lock key that processes hold shared which lock with this provider (`redis`,
/// `postgres`, `file`) in this namespace: as the key of a lock, over the text
/// `provider SPACE PROVIDER`, which is no name.
pub(super) fn mark_key(namespace: &str, provider: &str) -> i64 {
    Keys::new(namespace, &format!("provider {provider}")).lock
}

impl Keys {
    /// The advisory lock keys of a lock: the first and the second 64 bits, big-endian and as signed
    /// numbers, of SHA-256 over `"lock-postgres-v1" NUL namespace NUL name`, and the next 32 bits before
    /// [`WANTED`].
    ///
    /// Two names that share a key exclude each other, which is safe; by chance that happens to one pair
    /// in 2^64.
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        let digest = Sha256::new_with_prefix(PREFIX)
            .chain_update(namespace)
            .chain_update(b"\0")
            .chain_update(name)
            .finalize();
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&digest[at..at + 8]);
            i64::from_be_bytes(word)
        };
        Self {
            lock: word(0),
            is_pair: false,
            wait: word(8),
            want: word(16) & !0xffff_ffff | WANTED,
        }
    }

    /// Those of a lock whose key others have chosen. The key of its waiters is that of the text
    /// `waiters SPACE KEY`, which is no name.
    pub(super) fn of_others(key: AdvisoryKey) -> Self {
        let (lock, is_pair) = match key {
            AdvisoryKey::Bigint(key) => (key, false),
            AdvisoryKey::Pair(high, low) => ((i64::from(high) << 32) | i64::from(low as u32), true),
        };
        let of_waiters = Self::new("", &format!("waiters {key}"));
        Self {
            lock,
            is_pair,
            ..of_waiters
        }
    }

    /// What the holder holds.
    pub(super) fn key(self) -> AdvisoryKey {
        match self.is_pair {
            true => AdvisoryKey::Pair((self.lock >> 32) as i32, self.lock as i32),
            false => AdvisoryKey::Bigint(self.lock),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_frozen() {
        let vectors = [
            (
                "",
                "order:process:42",
                -4392062105972231254,
                6761751508906043865,
            ),
            (
                "shop",
                "order:process:42",
                -183487386175360293,
                -8951407972234423120,
            ),
            (
                "",
                "order:process:43",
                -7860020973124117092,
                -1168362816441617000,
            ),
            (
                "",
                "order:process:a",
                -4981344373476198973,
                -7759023580691010791,
            ),
            (
                "",
                "order:process:A",
                -7086941321013477268,
                2240509184247910032,
            ),
            (
                "",
                "job:cleanup-tokens",
                5327285214504019252,
                7398636965627367211,
            ),
        ];
        for (namespace, name, lock, wait) in vectors {
            let name = name.parse().unwrap();
            let made = Keys::new(namespace, LockName::as_str(&name));
            assert_eq!((made.lock, made.wait), (lock, wait), "{namespace} {name}");
            assert!(!made.is_pair);
            assert_eq!(advisory_key_in(namespace, &name), lock);
        }
        assert_eq!(Keys::new("", "everything").lock, EVERYTHING);
        assert_eq!(Keys::new("", "order:process:42").want, 3953804133743545940);
        assert_eq!(
            Keys::new("shop", "order:process:42").want,
            7202854328032382548
        );
    }

    #[test]
    fn keys_of_others_are_held_as_they_are() {
        for key in [
            AdvisoryKey::Bigint(i64::MIN),
            AdvisoryKey::Bigint(-1),
            AdvisoryKey::Pair(-1, -1),
            AdvisoryKey::Pair(i32::MAX, i32::MIN),
            AdvisoryKey::Pair(i32::MIN, 0),
        ] {
            assert_eq!(Keys::of_others(key).key(), key);
        }
        let (bigint, pair) = (AdvisoryKey::Bigint(1), AdvisoryKey::Pair(0, 1));
        let (bigint, pair) = (Keys::of_others(bigint), Keys::of_others(pair));
        assert!(bigint.lock == pair.lock && bigint != pair && bigint.wait != pair.wait);
    }

    #[test]
    fn marks_of_providers_are_frozen() {
        let vectors = [
            ("", "redis", 8533519142338570984),
            ("", "postgres", 4318822448026328615),
            ("", "file", 4734691395366462995),
            ("shop", "redis", 3019555322091001400),
        ];
        for (namespace, provider, key) in vectors {
            assert_eq!(mark_key(namespace, provider), key, "{namespace} {provider}");
        }
    }
}
