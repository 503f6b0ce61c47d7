//! What a lock is known by in the table. The form is versioned and frozen, as that of advisory lock keys is.

use std::fmt;
use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};

use crate::LockName;

/// Before what makes the key of a row. Part of every key: never to be changed.
const PREFIX: &[u8] = b"lock-table-v1\0";

/// Before what makes the keys of the marks of a namespace.
const MARK_PREFIX: &[u8] = b"lock-table-mark-v1\0";

/// The primary key of a lock: the first 128 bits of SHA-256 over `"lock-table-v1" NUL namespace NUL name`, a
/// `uuid` in the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey(u128);

/// The part of a key of a mark that is of the process.
const OF_PROCESS: u128 = u32::MAX as u128;

impl RowKey {
    /// The row of the server itself, which is no lock.
    pub(super) const SERVER: Self = Self(0);

    /// That of a lock.
    #[must_use]
    pub fn new(namespace: &str, name: &LockName) -> Self {
        let hash = Sha256::new_with_prefix(PREFIX)
            .chain_update(namespace)
            .chain_update(b"\0")
            .chain_update(name.as_str());
        Self::first_of(hash)
    }

    /// That of the mark of a process.
    pub(in crate::postgres) fn mark(namespace: &str, process: u32) -> Self {
        let first = Self::marks(namespace).start().0;
        Self(first | u128::from(process))
    }

    /// Those of all marks of a namespace.
    pub(in crate::postgres) fn marks(namespace: &str) -> RangeInclusive<Self> {
        let hash = Sha256::new_with_prefix(MARK_PREFIX).chain_update(namespace);
        let first = Self::first_of(hash).0 & !OF_PROCESS;
        Self(first)..=Self(first | OF_PROCESS)
    }

    /// The first 128 bits of a hash.
    fn first_of(hash: Sha256) -> Self {
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        Self(u128::from_be_bytes(key))
    }

    /// As PostgreSQL writes it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.replace('-', "");
        u128::from_str_radix(&digits, 16).ok().map(Self)
    }
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_postgresql_writes_it() {
        let key = RowKey::new("", &"order:process:42".parse().unwrap());
        let read = RowKey::parse("613bd97a-22b8-27b4-dcdb-b2ad1a908c15");
        assert_eq!(read, Some(key));
        assert!(RowKey::parse("check 1").is_none() && RowKey::parse("").is_none());
    }

    #[test]
    fn the_marks_of_a_namespace_are_a_range() {
        let (shop, other) = (RowKey::marks("shop"), RowKey::marks(""));
        for process in [0, 1, u32::MAX] {
            let mark = RowKey::mark("shop", process);
            assert!(shop.contains(&mark) && !other.contains(&mark));
        }
        assert_eq!(RowKey::mark("shop", 0), *shop.start());
        assert_eq!(RowKey::mark("shop", u32::MAX), *shop.end());
    }

    #[test]
    fn keys_are_frozen() {
        for (namespace, name, key) in [
            ("", "order:process:42", "613bd97a22b827b4dcdbb2ad1a908c15"),
            (
                "shop",
                "order:process:42",
                "ff5fab1f74f601926882ac18e18a1dbb",
            ),
            ("", "job:cleanup-tokens", "99ec579fabb1ff54a2cd776484ac2139"),
        ] {
            let made = RowKey::new(namespace, &name.parse().unwrap());
            assert_eq!(made.to_string(), key, "{namespace} {name}");
        }
    }
}
