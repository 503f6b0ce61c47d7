//! Advisory lock keys. The form is versioned and frozen: programs of different versions meet at the same
//! keys.

use sha2::{Digest, Sha256};

use crate::LockName;

/// Before what makes the keys of a PostgreSQL lock. Part of every key: never to be changed.
const PREFIX: &[u8] = b"lock-postgres-v1\0";

/// The advisory lock keys of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Keys {
    /// Held exclusively by the holder of the lock.
    pub(super) lock: i64,
    /// Held shared by every session that waits for it.
    pub(super) wait: i64,
}

/// The advisory lock key that a session holds shared when it waits for more names than it registers
/// one by one: as the key of a lock, over the text `everything`, which is no name.
pub(super) const EVERYTHING: i64 = -5_868_215_282_407_828_218;

/// The advisory lock key that sessions with a lease of so many milliseconds hold shared: as the key
/// of a lock, over the text `lease SPACE MILLISECONDS`, which is no name.
pub(super) fn lease_key(lease_ms: u64) -> i64 {
    keys_of("", &format!("lease {lease_ms}")).lock
}

/// The advisory lock key that processes hold shared which lock with this provider (`redis`,
/// `postgres`, `file`) in this namespace: as the key of a lock, over the text
/// `provider SPACE PROVIDER`, which is no name.
pub(super) fn mark_key(namespace: &str, provider: &str) -> i64 {
    keys_of(namespace, &format!("provider {provider}")).lock
}

impl Keys {
    /// The advisory lock keys of a lock: the first and the second 64 bits, big-endian and as signed
    /// numbers, of SHA-256 over `"lock-postgres-v1" NUL namespace NUL name`.
    ///
    /// Two names that share a key exclude each other, which is safe; by chance that happens to one pair
    /// in 2^64.
    pub(super) fn new(namespace: &str, name: &LockName) -> Self {
        keys_of(namespace, name.as_str())
    }
}

fn keys_of(namespace: &str, text: &str) -> Keys {
    let digest = Sha256::new_with_prefix(PREFIX)
        .chain_update(namespace)
        .chain_update(b"\0")
        .chain_update(text)
        .finalize();
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&digest[at..at + 8]);
        i64::from_be_bytes(word)
    };
    Keys {
        lock: word(0),
        wait: word(8),
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
            assert_eq!(
                Keys::new(namespace, &name.parse().unwrap()),
                Keys { lock, wait },
                "{namespace} {name}"
            );
        }
        assert_eq!(keys_of("", "everything").lock, EVERYTHING);
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
