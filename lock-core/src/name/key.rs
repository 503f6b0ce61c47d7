//! What backends derive from a name. Each form is versioned and frozen: programs of different
//! versions meet at the same keys.

#[cfg(any(feature = "file", feature = "redis"))]
use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

use super::LockName;

/// Before what makes a file name. Part of every key: never to be changed.
#[cfg(feature = "file")]
const FILE: &[u8] = b"lock-file-v1\0";

/// The file name, without extension, of a lock: `v1-` and 160 bits of SHA-256 over
/// `"lock-file-v1" NUL namespace NUL name` in lower-case base32 without padding: 35 bytes.
///
/// A hash, since an escaped name can be longer than a file name may be; base32, since some file
/// systems do not tell upper from lower case. A name contains no NUL, so that no two pairs of
/// namespace and name give one text.
#[cfg(feature = "file")]
pub(crate) fn file_stem(namespace: &str, name: &LockName) -> String {
    let digest = Sha256::new_with_prefix(FILE)
        .chain_update(namespace)
        .chain_update(b"\0")
        .chain_update(name.as_str())
        .finalize();
    let mut stem = BASE32_NOPAD.encode(&digest[..20]);
    stem.make_ascii_lowercase();
    stem.insert_str(0, "v1-");
    stem
}

/// Before what makes the keys of a PostgreSQL lock. Part of every key: never to be changed.
#[cfg(feature = "postgres")]
const POSTGRES: &[u8] = b"lock-postgres-v1\0";

/// The advisory lock keys of one name.
#[cfg(feature = "postgres")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PostgresKeys {
    /// Held exclusively by whoever holds the lock.
    pub(crate) lock: i64,
    /// Held shared by every session that waits for it.
    pub(crate) wait: i64,
}

/// The advisory lock keys of a lock: the first and the second 64 bits, big-endian and as signed
/// numbers, of SHA-256 over `"lock-postgres-v1" NUL namespace NUL name`.
///
/// Two names that share a key exclude each other, which is safe; by chance that happens to one pair
/// in 2^64.
#[cfg(feature = "postgres")]
pub(crate) fn postgres_keys(namespace: &str, name: &LockName) -> PostgresKeys {
    keys_of(namespace, name.as_str())
}

/// The advisory lock key that a session holds shared when it waits for more names than it registers
/// one by one: as the key of a lock, over the text `everything`, which is no name.
#[cfg(feature = "postgres")]
pub(crate) const POSTGRES_EVERYTHING: i64 = -5_868_215_282_407_828_218;

/// The advisory lock key that sessions with a lease of so many milliseconds hold shared: as the key
/// of a lock, over the text `lease SPACE MILLISECONDS`, which is no name.
#[cfg(feature = "postgres")]
pub(crate) fn postgres_lease_key(lease_ms: u64) -> i64 {
    keys_of("", &format!("lease {lease_ms}")).lock
}

/// The advisory lock key that processes hold shared which lock with this provider (`redis`,
/// `postgres`, `file`) in this namespace: as the key of a lock, over the text
/// `provider SPACE PROVIDER`, which is no name.
#[cfg(feature = "postgres")]
pub(crate) fn postgres_mark_key(namespace: &str, provider: &str) -> i64 {
    keys_of(namespace, &format!("provider {provider}")).lock
}

#[cfg(feature = "postgres")]
fn keys_of(namespace: &str, text: &str) -> PostgresKeys {
    let digest = Sha256::new_with_prefix(POSTGRES)
        .chain_update(namespace)
        .chain_update(b"\0")
        .chain_update(text)
        .finalize();
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&digest[at..at + 8]);
        i64::from_be_bytes(word)
    };
    PostgresKeys {
        lock: word(0),
        wait: word(8),
    }
}

/// Before what makes the keys of a Redis lock. Part of every key: never to be changed.
#[cfg(feature = "redis")]
const REDIS: &[u8] = b"lock-redis-v1\0";

/// The key of a lock in Redis, which is the name of its channel as well, and the bucket that it is
/// in: `lock:{bN}:v1-H`, where `N` is the first byte, in decimal, and `H` the next 160 bits, in
/// lower-case base32 without padding, of SHA-256 over `"lock-redis-v1" NUL namespace NUL name`.
///
/// What is in the braces decides the slot of a cluster: locks of one bucket can share a call, and
/// no text of a user's gets there.
#[cfg(feature = "redis")]
pub(crate) fn redis_key(namespace: &str, name: &LockName) -> (u8, String) {
    let (bucket, stem) = redis_digest(namespace, name.as_str());
    (bucket, format!("lock:{{b{bucket}}}:v1-{stem}"))
}

/// The key beside the locks of a bucket, where the server that granted them and the last token are
/// noted: `lock:{bN}:server-v1-H`, `H` as for a lock with the empty name, which none has.
#[cfg(feature = "redis")]
pub(crate) fn redis_server_key(namespace: &str, bucket: u8) -> String {
    let (_, stem) = redis_digest(namespace, "");
    format!("lock:{{b{bucket}}}:server-v1-{stem}")
}

#[cfg(feature = "redis")]
fn redis_digest(namespace: &str, name: &str) -> (u8, String) {
    let digest = Sha256::new_with_prefix(REDIS)
        .chain_update(namespace)
        .chain_update(b"\0")
        .chain_update(name)
        .finalize();
    let mut stem = BASE32_NOPAD.encode(&digest[1..21]);
    stem.make_ascii_lowercase();
    (digest[0], stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "file")]
    #[test]
    fn file_stems_are_frozen() {
        let vectors = [
            (
                "",
                "order:process:42",
                "v1-mwy6ryselpbhixmast2zfv5q2mabha7k",
            ),
            (
                "shop",
                "order:process:42",
                "v1-yfy35rvirxlv6ndkjw63mx6ukyp6243t",
            ),
            (
                "",
                "order:process:43",
                "v1-lx73m2xtxn46ldpu3c4ot6r7luinayfi",
            ),
            ("", "order:process:a", "v1-d5gh2j6yeb7mw5yaj642m7cdutzamj6w"),
            ("", "order:process:A", "v1-qdzghwaiihaugx3ojeon544xk44as4dd"),
            (
                "",
                "job:cleanup-tokens",
                "v1-v7wh5yzafmx2pjcwh6rt2gv2xe36vd3e",
            ),
        ];
        for (namespace, name, stem) in vectors {
            assert_eq!(
                file_stem(namespace, &name.parse().unwrap()),
                stem,
                "{namespace} {name}"
            );
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn postgres_keys_are_frozen() {
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
                postgres_keys(namespace, &name.parse().unwrap()),
                PostgresKeys { lock, wait },
                "{namespace} {name}"
            );
        }
        assert_eq!(keys_of("", "everything").lock, POSTGRES_EVERYTHING);
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn marks_of_providers_are_frozen() {
        let vectors = [
            ("", "redis", 8533519142338570984),
            ("", "postgres", 4318822448026328615),
            ("", "file", 4734691395366462995),
            ("shop", "redis", 3019555322091001400),
        ];
        for (namespace, provider, key) in vectors {
            assert_eq!(
                postgres_mark_key(namespace, provider),
                key,
                "{namespace} {provider}"
            );
        }
    }

    #[cfg(feature = "redis")]
    #[test]
    fn redis_keys_are_frozen() {
        let vectors = [
            (
                "",
                "order:process:42",
                "lock:{b133}:v1-hdvvms5dzyqfslkmwblkpoqawzkxddkg",
            ),
            (
                "shop",
                "order:process:42",
                "lock:{b41}:v1-abvyxqonv2pmxklgd7fg6g6etm2jbft7",
            ),
            (
                "",
                "order:process:43",
                "lock:{b237}:v1-am765dpf4jfgvw7mjzpyqnd5lze4wihc",
            ),
            (
                "",
                "order:process:a",
                "lock:{b83}:v1-5nx4yegl6lyftepo4siuyjx46p6xh7ki",
            ),
            (
                "",
                "order:process:A",
                "lock:{b200}:v1-gyjawxkmzymcrrkoryrrhspnujjlejry",
            ),
            (
                "",
                "job:cleanup-tokens",
                "lock:{b104}:v1-6sheas5mdm7u6p6exlyne44ldusdw5n3",
            ),
        ];
        for (namespace, name, expected) in vectors {
            let (bucket, key) = redis_key(namespace, &name.parse().unwrap());
            assert_eq!(key, expected, "{namespace} {name}");
            assert!(key.starts_with(&format!("lock:{{b{bucket}}}:")));
        }
        assert_eq!(
            redis_server_key("", 17),
            "lock:{b17}:server-v1-ib6jrqlybqtztrcy5w4ysqo6orrz66ok"
        );
        assert_eq!(
            redis_server_key("shop", 255),
            "lock:{b255}:server-v1-tqpjyqarczuxaa3sddvvq7l3zv7ilwjr"
        );
    }

    #[cfg(feature = "file")]
    #[test]
    fn namespace_and_name_do_not_run_into_each_other() {
        let stem = |namespace, name: &str| file_stem(namespace, &name.parse().unwrap());
        assert_ne!(stem("a:b", "c:d:e"), stem("a", "b:c:d"));
        assert_ne!(stem("a:", "b:c:d"), stem("a", "b:c:d"));
        assert_ne!(stem("a\0", "b:c:d"), stem("a", "b:c:d"));
    }
}
