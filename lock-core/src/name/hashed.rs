//! Hashes of values: those that are too long, and those that must not be seen.

use std::sync::OnceLock;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use lock_grammar::HASH_LEN;
use sha2::{Digest, Sha256};

use crate::{LockError, LockName};

/// Before a value that is shortened. Part of every such name: never to be changed.
const SHORTENED: &[u8] = b"lock-name-v1:shortened\0";

/// Before a value of a `:hashed` placeholder. Part of every such name: never to be changed.
const HASHED: &[u8] = b"lock-name-v1:hashed\0";

/// Before a name that is told apart from others in traces.
const TRACED: &[u8] = b"lock-name-v1:traced\0";

/// The bits of a hash that a name keeps.
const HASH_BYTES: usize = 16;

/// The key of `:hashed` values.
pub(super) struct NameSecret(Option<Hmac<Sha256>>);

static OF_PROCESS: OnceLock<NameSecret> = OnceLock::new();

/// Makes this the secret of the process. It cannot change: names that are one lock would become two.
///
/// # Errors
///
/// [`Misconfigured`](crate::LockErrorKind::Misconfigured) when another one is in use.
pub(crate) fn set_name_secret(secret: &[u8]) -> Result<(), LockError> {
    let new = NameSecret::new(secret);
    let fingerprint = |secret: &NameSecret| ValueHash::hashed(secret).finish();
    let expected = fingerprint(&new);
    if fingerprint(OF_PROCESS.get_or_init(|| new)) == expected {
        return Ok(());
    }
    Err(LockError::misconfigured(
        "LOCK_NAME_SECRET: this process has made names with another secret already",
    ))
}

impl NameSecret {
    /// A secret of these bytes; none when there are no bytes.
    pub(super) fn new(secret: &[u8]) -> Self {
        Self((!secret.is_empty()).then(|| {
            <Hmac<Sha256> as KeyInit>::new_from_slice(secret)
                .expect("HMAC takes keys of every length")
        }))
    }

    fn from_env() -> Self {
        let secret = std::env::var_os("LOCK_NAME_SECRET").unwrap_or_default();
        Self::new(secret.as_encoded_bytes())
    }

    /// That of this process: `LOCK_NAME_SECRET`, read at the first `:hashed` value.
    pub(super) fn of_process() -> &'static Self {
        OF_PROCESS.get_or_init(Self::from_env)
    }
}

/// The hash of a value that arrives in parts.
#[derive(Clone)]
pub(super) enum ValueHash {
    Plain(Sha256),
    Keyed(Hmac<Sha256>),
}

impl ValueHash {
    pub(super) fn shortened() -> Self {
        Self::Plain(Sha256::new_with_prefix(SHORTENED))
    }

    pub(super) fn hashed(secret: &NameSecret) -> Self {
        Self::with_prefix(HASHED, secret)
    }

    fn with_prefix(prefix: &[u8], secret: &NameSecret) -> Self {
        match &secret.0 {
            None => Self::Plain(Sha256::new_with_prefix(prefix)),
            Some(keyed) => {
                let mut keyed = keyed.clone();
                keyed.update(prefix);
                Self::Keyed(keyed)
            }
        }
    }

    pub(super) fn update(&mut self, part: &[u8]) {
        match self {
            Self::Plain(hash) => Digest::update(hash, part),
            Self::Keyed(hash) => Mac::update(hash, part),
        }
    }

    /// The hash as it stands in a name.
    pub(super) fn finish(self) -> [u8; HASH_LEN] {
        let digest: [u8; 32] = match self {
            Self::Plain(hash) => hash.finalize().into(),
            Self::Keyed(hash) => hash.finalize().into_bytes().into(),
        };
        let mut text = [0; HASH_LEN];
        BASE64URL_NOPAD.encode_mut(&digest[..HASH_BYTES], &mut text);
        text
    }
}

/// Tells a name from others without showing it: 128 bits in base64url, keyed as `:hashed` values are.
/// No name is made of it, so that it does not decide which secret this process has.
pub(crate) fn fingerprint(name: &LockName) -> String {
    match OF_PROCESS.get() {
        Some(secret) => fingerprint_under(secret, name),
        None => fingerprint_under(&NameSecret::from_env(), name),
    }
}

fn fingerprint_under(secret: &NameSecret, name: &LockName) -> String {
    let mut hash = ValueHash::with_prefix(TRACED, secret);
    hash.update(name.as_str().as_bytes());
    String::from_utf8_lossy(&hash.finish()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(mut hash: ValueHash, parts: &[&str]) -> String {
        for part in parts {
            hash.update(part.as_bytes());
        }
        String::from_utf8(hash.finish().to_vec()).unwrap()
    }

    fn hashed(secret: &str, parts: &[&str]) -> String {
        finish(
            ValueHash::hashed(&NameSecret::new(secret.as_bytes())),
            parts,
        )
    }

    #[test]
    fn hashes_are_frozen() {
        let vectors = [
            ("", "xrqj5IWoNn4UsG3mLsaDqA"),
            ("correct horse", "xhh0CYXfLyflqSC6F8Y-gw"),
            // Longer than a block of the hash.
            (&"k".repeat(100), "CPjvgac1MhrX1Fjabn31Yw"),
        ];
        for (secret, hash) in vectors {
            assert_eq!(
                hashed(secret, &["ada@example.org"]),
                hash,
                "secret: {secret:?}"
            );
            assert_eq!(
                hashed(secret, &["ada", "", "@example.org"]),
                hash,
                "secret: {secret:?}"
            );
        }
        let shortened = finish(ValueHash::shortened(), &["x".repeat(87).as_str()]);
        assert_eq!(shortened, "eHhC7jhMw2yJ_tx2MwyqwA");
    }

    #[test]
    fn fingerprints_are_frozen() {
        let name = "order:process:42".parse().unwrap();
        for (secret, fingerprint) in [
            ("", "kHE8oN2HZZLFr4CbewwruQ"),
            ("correct horse", "mRr1r9WD485Sb7ba74iAoQ"),
        ] {
            let secret = NameSecret::new(secret.as_bytes());
            assert_eq!(fingerprint_under(&secret, &name), fingerprint);
        }
    }

    #[test]
    fn what_is_hashed_and_what_is_too_long_have_different_hashes() {
        assert_ne!(
            hashed("", &["ada"]),
            finish(ValueHash::shortened(), &["ada"])
        );
    }
}
