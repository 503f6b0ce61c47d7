//! What names a record, and what tells one request from another: hashes, so that neither a lock nor a
//! store sees a key, a caller or a payload.

use std::fmt;

use data_encoding::HEXLOWER;
use http::{Method, Uri};
use lock_core::{LockError, LockName};
use sha2::{Digest, Sha256};

/// The version is in the hash: another way to hash never meets the records of this one.
const KEY: &[u8] = b"lock-idempotency key 1";
const FINGERPRINT: &[u8] = b"lock-idempotency fingerprint 1";

/// The name of a record: SHA-256 of the caller's scope, the route and the key. `Display` is its 64
/// hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey([u8; 32]);

impl RecordKey {
    /// The name that a layer gives to the record of this caller, pattern of a route and key. For tests of
    /// stores, and to look for a record by hand.
    ///
    /// ```
    /// use lock_idempotency::RecordKey;
    ///
    /// let key = RecordKey::new("ann", "/payments", "8e03978e");
    /// assert_ne!(key, RecordKey::new("bob", "/payments", "8e03978e"));
    /// ```
    #[must_use]
    pub fn new(scope: &str, route: &str, key: &str) -> Self {
        Self(hash(
            KEY,
            &[scope.as_bytes(), route.as_bytes(), key.as_bytes()],
        ))
    }

    /// The hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The lock of the request that makes this record.
    pub(crate) fn lock_name(&self) -> Result<LockName, LockError> {
        LockName::new("idempotency", "key", self)
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKey({self})")
    }
}

/// The request that a record answers: SHA-256 of its method, its path with the query, and its body.
///
/// The name of the record is hashed along, so that equal payloads of two callers have different
/// fingerprints.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn new(record: &RecordKey, method: &Method, uri: &Uri, body: &[u8]) -> Self {
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        let parts = [
            &record.0[..],
            method.as_str().as_bytes(),
            target.as_bytes(),
            body,
        ];
        Self(hash(FINGERPRINT, &parts))
    }

    /// The hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The fingerprint with this hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", HEXLOWER.encode(&self.0))
    }
}

fn hash(purpose: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(purpose);
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        let keys = [
            RecordKey::new("a", "b", "c"),
            RecordKey::new("ab", "", "c"),
            RecordKey::new("a", "bc", ""),
            RecordKey::new("", "ab", "c"),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[at + 1..].contains(key), "{key:?}");
        }
    }

    #[test]
    fn hashes_are_frozen() {
        let key = RecordKey::new("ann", "/payments/{id}/refund", "8e03978e");
        let uri = Uri::from_static("/payments/7/refund?notify=1");
        let fingerprint = Fingerprint::new(&key, &Method::POST, &uri, b"{}");
        assert_eq!(
            key.to_string(),
            "dd1d8592aa7aff52b75343ec4d28a08f75f91eb66cdb8edc7d5a09e862f3fe87"
        );
        assert_eq!(
            HEXLOWER.encode(&fingerprint.0),
            "c6c72d1bf1ecb9008ede1675398a3f2a8fdf1d0394defb82d80e072c8f2aeef7"
        );
        let name = key.lock_name().expect("a name");
        assert_eq!(name.as_str(), format!("idempotency:key:{key}"));
    }
}
