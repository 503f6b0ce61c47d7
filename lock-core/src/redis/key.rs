//! Keys and owners, as the scripts see them. The forms of keys are versioned and frozen: programs of
//! different versions meet at the same keys.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

use crate::LockName;
use crate::server::leased::{Owner, Part};

/// How many hash tags the keys carry.
pub(super) const BUCKETS: usize = 256;

/// The key of a lock, which is the name of its channel as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub(super) text: Arc<str>,
    pub(super) bucket: u8,
}

impl Key {
    pub(super) fn new(namespace: &str, name: &LockName) -> Self {
        let (bucket, text) = key(namespace, name);
        Self {
            text: text.into(),
            bucket,
        }
    }
}

/// Before what makes the keys of a Redis lock. Part of every key: never to be changed.
const PREFIX: &[u8] = b"lock-redis-v1\0";

/// The key of a lock in Redis, which is the name of its channel as well, and the bucket that it is
/// in: `lock:{bN}:v1-H`, where `N` is the first byte, in decimal, and `H` the next 160 bits, in
/// lower-case base32 without padding, of SHA-256 over `"lock-redis-v1" NUL namespace NUL name`.
///
/// What is in the braces decides the slot of a cluster: locks of one bucket can share a call, and
/// no text of a user's gets there.
fn key(namespace: &str, name: &LockName) -> (u8, String) {
    let (bucket, stem) = digest_of(namespace, name.as_str());
    (bucket, format!("lock:{{b{bucket}}}:v1-{stem}"))
}

/// What keys of locks match, of each namespace: what tells those apart is in the hash. The braces mean themselves.
pub(super) const PATTERN: &str = "lock:{b*}:v1-????????????????????????????????";

/// How long they are at most.
pub(super) const LONGEST: usize = 47;

/// The key of a lock, of whichever namespace, if these bytes are one: what matches the pattern can be of others.
pub(super) fn lock_of(bytes: &[u8]) -> Option<Key> {
    let text = str::from_utf8(bytes).ok()?;
    let (bucket, stem) = text.strip_prefix("lock:{b")?.split_once("}:v1-")?;
    let number: u8 = bucket.parse().ok()?;
    let is_stem = stem.len() == 32 && stem.bytes().all(|c| matches!(c, b'a'..=b'z' | b'2'..=b'7'));
    (is_stem && number.to_string() == bucket).then(|| Key {
        text: text.into(),
        bucket: number,
    })
}

/// The key beside the locks of a bucket, where the server that granted them and the last token are
/// noted: `lock:{bN}:server-v1-H`, `H` as for a lock with the empty name, which none has.
pub(super) fn server_key(namespace: &str, bucket: u8) -> String {
    let (_, stem) = digest_of(namespace, "");
    format!("lock:{{b{bucket}}}:server-v1-{stem}")
}

fn digest_of(namespace: &str, name: &str) -> (u8, String) {
    let digest = Sha256::new_with_prefix(PREFIX)
        .chain_update(namespace)
        .chain_update(b"\0")
        .chain_update(name)
        .finalize();
    let mut stem = BASE32_NOPAD.encode(&digest[1..21]);
    stem.make_ascii_lowercase();
    (digest[0], stem)
}

/// The set of readers beside a lock: no key of a lock ends so.
pub(super) fn readers(lock: &str) -> String {
    format!("{lock}:readers")
}

/// An owner as the scripts are given it, with what it has or asks for: a space, with which the value of a lock begins,
/// for the lock, `&` for a share of it, or `+` where the reader waits, and `?` for the place of a writer that waits, or
/// for the lock where it has one or is to be given one.
pub(super) fn prefix(owner: Owner, is_waiting: bool) -> [u8; 33] {
    let mut prefix = [0; 33];
    prefix[..32].copy_from_slice(&owner.text());
    prefix[32] = match owner.part {
        Part::Whole if is_waiting => b'?',
        Part::Whole => b' ',
        Part::Share if is_waiting => b'+',
        Part::Share => b'&',
        Part::Place => b'?',
    };
    prefix
}

/// Whole milliseconds, as Redis takes them.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
            let (bucket, text) = key(namespace, &name.parse().unwrap());
            assert_eq!(text, expected, "{namespace} {name}");
            assert!(text.starts_with(&format!("lock:{{b{bucket}}}:")));
            let read = lock_of(text.as_bytes()).unwrap();
            assert_eq!((&*read.text, read.bucket), (&*text, bucket));
            assert!(text.len() <= LONGEST && text.len() == LONGEST - 3 + bucket.to_string().len());
        }
        assert_eq!(
            server_key("", 17),
            "lock:{b17}:server-v1-ib6jrqlybqtztrcy5w4ysqo6orrz66ok"
        );
        assert_eq!(
            server_key("shop", 255),
            "lock:{b255}:server-v1-tqpjyqarczuxaa3sddvvq7l3zv7ilwjr"
        );
    }

    #[test]
    fn what_only_looks_like_the_key_of_a_lock_is_none() {
        let stem = "hdvvms5dzyqfslkmwblkpoqawzkxddkg";
        for text in [
            format!("lock:{{b256}}:v1-{stem}"),
            format!("lock:{{b01}}:v1-{stem}"),
            format!("lock:{{b+1}}:v1-{stem}"),
            format!("lock:{{b}}:v1-{stem}"),
            format!("lock:{{b1}}:v1-{stem}a"),
            format!("lock:{{b1}}:v1-{}", stem.to_uppercase()),
            format!("lock:{{b1}}:v1-{}\u{1b}", &stem[1..]),
            format!("lock:{{b1}}:v1-{}1", &stem[1..]),
            format!("lock:{{b1}}:v2-{stem}"),
            format!("lock:{{b1}}:v1-{stem}:readers"),
        ] {
            assert_eq!(lock_of(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(lock_of(b"lock:{b1}:v1-\xff"), None);
    }

    #[test]
    fn an_owner_is_followed_by_what_it_asks_for() {
        for (part, is_waiting, sign) in [
            (Part::Whole, false, ' '),
            (Part::Whole, true, '?'),
            (Part::Share, false, '&'),
            (Part::Share, true, '+'),
            (Part::Place, false, '?'),
        ] {
            let owner = Owner {
                connection: 1 << 63,
                number: 0xab,
                part,
            };
            let text = format!("800000000000000000000000000000ab{sign}");
            assert_eq!(prefix(owner, is_waiting), *text.as_bytes());
        }
    }
}
