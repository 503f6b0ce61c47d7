//! Hashes of values: those that are too long, and those that must not be seen.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Once, OnceLock};

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use lock_grammar::HASH_LEN;
use sha2::{Digest, Sha256};

use crate::{LockError, LockName, plain_text};

/// Before a value that is shortened. Part of every such name: never to be changed.
const SHORTENED: &[u8] = b"lock-name-v1:shortened\0";

/// Before a value of a `:hashed` placeholder. Part of every such name: never to be changed.
const HASHED: &[u8] = b"lock-name-v1:hashed\0";

/// Before a name that is too long for the number of a slot. Part of every such slot: never to be changed.
const SLOT: &[u8] = b"lock-name-v1:slot\0";

/// Before a name that is told apart from others in traces.
const TRACED: &[u8] = b"lock-name-v1:traced\0";

/// Before nothing: what is left is of the secret alone.
const SECRET: &[u8] = b"lock-name-v1:secret\0";

/// What stands for a placeholder in the literal text of a template, which has none of these.
const PLACEHOLDER: &[u8] = b"<>";

/// A secret of fewer bytes can be guessed.
const SHORTEST_SECRET: usize = 16;

/// The bits of a hash that a name keeps.
const HASH_BYTES: usize = 16;

/// The key of `:hashed` values.
pub(super) struct NameSecret {
    key: Option<Hmac<Sha256>>,
    is_weak: bool,
}

static OF_PROCESS: OnceLock<NameSecret> = OnceLock::new();

/// Makes this the secret of the process. It cannot change: names that are one lock would become two.
///
/// # Errors
///
/// [`Misconfigured`](crate::LockErrorKind::Misconfigured) when another one is in use.
pub(crate) fn set_name_secret(secret: &[u8]) -> Result<(), LockError> {
    let new = NameSecret::new(secret);
    let digest = |secret: &NameSecret| ValueHash::with_prefix(SECRET, secret).finish();
    let expected = digest(&new);
    if digest(OF_PROCESS.get_or_init(|| new)) == expected {
        return Ok(());
    }
    Err(LockError::misconfigured(
        "LOCK_NAME_SECRET: this process has made names with another secret already",
    ))
}

/// Does something with the secret of this process, without deciding which one that is.
fn with_secret<T>(look: impl FnOnce(&NameSecret) -> T) -> T {
    match OF_PROCESS.get() {
        Some(secret) => look(secret),
        None => look(&NameSecret::from_env()),
    }
}

/// Tells one secret from another in a log: `none`, or 16 bits in hexadecimal.
///
/// Few bits on purpose. Two instances with different secrets show it but once in 65,536 times, and a
/// log gives away no more of a secret than these bits, however fast its reader computes.
#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
pub(crate) fn secret_fingerprint() -> String {
    with_secret(NameSecret::fingerprint)
}

impl NameSecret {
    /// A secret of these bytes; none when there are no bytes.
    pub(super) fn new(secret: &[u8]) -> Self {
        let secret = plain_text::secret(secret);
        Self {
            key: (!secret.is_empty()).then(|| hmac(secret)),
            is_weak: secret.len() < SHORTEST_SECRET,
        }
    }

    #[cfg(any(test, feature = "file", feature = "postgres", feature = "redis"))]
    fn fingerprint(&self) -> String {
        if self.key.is_none() {
            return "none".to_owned();
        }
        let [high, low, ..] = ValueHash::with_prefix(SECRET, self).digest();
        format!("{high:02x}{low:02x}")
    }

    /// A warning, once in a process, where the hash of a value gives the value away.
    pub(super) fn warn_if_weak(&self) {
        static WARNED: Once = Once::new();
        if !self.is_weak {
            return;
        }
        WARNED.call_once(|| {
            let secret = match self.key {
                None => "without a secret".to_owned(),
                Some(_) => format!("with a secret of fewer than {SHORTEST_SECRET} bytes"),
            };
            tracing::warn!(
                "a `:hashed` value goes into a lock name {secret}: a reader of the name can find the \
                 value by guessing; set LOCK_NAME_SECRET to {SHORTEST_SECRET} or more random bytes, the \
                 same on all instances"
            );
        });
    }

    /// That of traces: it cannot be guessed. Without a good secret it is of this process alone.
    fn for_traces() -> Self {
        // The standard library has its keys from the operating system.
        let random = RandomState::new();
        let words: [u64; 4] = [0_u8, 1, 2, 3].map(|n| random.hash_one(n));
        Self {
            key: Some(hmac(&words.map(u64::to_ne_bytes).concat())),
            is_weak: false,
        }
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

    pub(super) fn slot() -> Self {
        Self::Plain(Sha256::new_with_prefix(SLOT))
    }

    /// Of a value that is `:hashed` at this place of a template, of which the literal parts are given,
    /// `None` for a placeholder. They are hashed first: a value has another hash in another template,
    /// and the same one however the placeholders are called there.
    pub(super) fn hashed<'a>(
        secret: &NameSecret,
        pieces: impl Iterator<Item = Option<&'a [u8]>>,
        place: usize,
    ) -> Self {
        let mut hash = Self::with_prefix(HASHED, secret);
        for piece in pieces {
            hash.update(piece.unwrap_or(PLACEHOLDER));
        }
        // No literal has a byte below 32.
        hash.update(&[0, u8::try_from(place).unwrap_or(u8::MAX)]);
        hash
    }

    fn with_prefix(prefix: &[u8], secret: &NameSecret) -> Self {
        match &secret.key {
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

    fn digest(self) -> [u8; 32] {
        match self {
            Self::Plain(hash) => hash.finalize().into(),
            Self::Keyed(hash) => hash.finalize().into_bytes().into(),
        }
    }

    /// The hash as it stands in a name.
    pub(super) fn finish(self) -> [u8; HASH_LEN] {
        let mut text = [0; HASH_LEN];
        BASE64URL_NOPAD.encode_mut(&self.digest()[..HASH_BYTES], &mut text);
        text
    }
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of every length")
}

/// Tells a name from others without showing it: 128 bits in base64url, keyed as `:hashed` values are
/// where the secret cannot be guessed, else by random bytes of this process. No name is made of it, so
/// that it does not decide which secret this process has.
pub(crate) fn fingerprint(name: &LockName) -> String {
    static OF_TRACES: OnceLock<NameSecret> = OnceLock::new();
    with_secret(|secret| match secret.is_weak {
        true => fingerprint_under(OF_TRACES.get_or_init(NameSecret::for_traces), name),
        false => fingerprint_under(secret, name),
    })
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

    /// In `user:login:<email:hashed>`.
    fn hashed(secret: &[u8], parts: &[&str]) -> String {
        let pieces = [Some(&b"user:login:"[..]), None].into_iter();
        finish(
            ValueHash::hashed(&NameSecret::new(secret), pieces, 0),
            parts,
        )
    }

    #[test]
    fn hashes_are_frozen() {
        let vectors = [
            ("", "fX0xOQ5DgAS3Y8_4HRX8DQ"),
            ("correct horse", "2TvtabCNbT-_aaDs7grwvA"),
            // Longer than a block of the hash.
            (&"k".repeat(100), "hM4XIGpIiRK2pf8XttxdiA"),
        ];
        for (secret, hash) in vectors {
            let secret = secret.as_bytes();
            assert_eq!(hashed(secret, &["ada@example.org"]), hash, "{secret:?}");
            let parts = ["ada", "", "@example.org"];
            assert_eq!(hashed(secret, &parts), hash, "{secret:?}");
        }
        let shortened = finish(ValueHash::shortened(), &["x".repeat(87).as_str()]);
        assert_eq!(shortened, "eHhC7jhMw2yJ_tx2MwyqwA");
    }

    #[test]
    fn fingerprints_are_frozen() {
        let name = "order:process:42".parse().unwrap();
        let secret = NameSecret::new(b"correct horse");
        assert_eq!(fingerprint_under(&secret, &name), "mRr1r9WD485Sb7ba74iAoQ");
        assert_eq!(secret.fingerprint(), "1c7f");
        assert_eq!(NameSecret::new(b"").fingerprint(), "none");
    }

    #[test]
    fn blanks_around_a_secret_do_not_count() {
        let expected = hashed(b"correct horse", &["ada"]);
        for secret in [
            &b"correct horse\n"[..],
            b" correct horse",
            b"correct horse\0",
        ] {
            assert_eq!(hashed(secret, &["ada"]), expected, "{secret:?}");
        }
        // Random bytes are no text.
        assert_ne!(
            hashed(b"\xff\x00\n", &["ada"]),
            hashed(b"\xff\x00", &["ada"])
        );
        assert_eq!(hashed(b" \n", &["ada"]), hashed(b"", &["ada"]));
    }

    #[test]
    fn a_guessable_secret_is_not_the_key_of_traces() {
        let name = "order:process:42".parse().unwrap();
        let [one, other] = [NameSecret::for_traces(), NameSecret::for_traces()];
        assert_eq!(
            fingerprint_under(&one, &name),
            fingerprint_under(&one, &name)
        );
        assert_ne!(
            fingerprint_under(&one, &name),
            fingerprint_under(&other, &name)
        );
        for (secret, is_weak) in [(&b""[..], true), (&[b'x'; 15], true), (&[b'x'; 16], false)] {
            assert_eq!(NameSecret::new(secret).is_weak, is_weak);
        }
    }

    #[test]
    fn what_is_hashed_and_what_is_too_long_have_different_hashes() {
        assert_ne!(
            hashed(b"", &["ada"]),
            finish(ValueHash::shortened(), &["ada"])
        );
    }
}
