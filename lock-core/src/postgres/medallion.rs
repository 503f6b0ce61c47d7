//! The keys of DistributedLock.Postgres, the library of .NET programs.

use sha1::{Digest, Sha1};

use super::key::AdvisoryKey;

/// How many characters of ASCII fit 63 bits.
const SHORT: usize = 9;

/// The key that a .NET program locks under this name, with hashing allowed, as its provider has it.
///
/// A short name of ASCII and `XXXXXXXX,XXXXXXXX` in hexadecimal are pairs, 16 hexadecimal digits are the
/// bigint itself, and the rest is hashed.
pub(super) fn key(name: &str) -> AdvisoryKey {
    if name.is_ascii() && name.len() <= SHORT {
        return pair(short(name));
    }
    if let Some((high, low)) = name.split_once(',')
        && let (Some(high), Some(low)) = (hexadecimal(high, 8), hexadecimal(low, 8))
    {
        return pair(high << 32 | low);
    }
    match hexadecimal(name, 16) {
        Some(key) => AdvisoryKey::Bigint(key.cast_signed()),
        None => AdvisoryKey::Bigint(hashed(name)),
    }
}

/// Seven bits a character, then a zero, then ones: no two names are alike.
fn short(name: &str) -> u64 {
    let text = (name.bytes()).fold(0, |key, byte| key << 7 | u64::from(byte));
    (name.len()..SHORT).fold(text << 1, |key, _| key << 7 | 0x7f)
}

/// The number of exactly so many hexadecimal digits.
fn hexadecimal(text: &str, digits: usize) -> Option<u64> {
    let is_plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_plain.then(|| u64::from_str_radix(text, 16).ok())?
}

/// The first 64 bits of SHA-1, little-endian.
fn hashed(name: &str) -> i64 {
    let digest = Sha1::digest(name);
    let mut word = [0; 8];
    word.copy_from_slice(&digest[..8]);
    i64::from_le_bytes(word)
}

fn pair(bits: u64) -> AdvisoryKey {
    AdvisoryKey::Pair((bits >> 32) as i32, bits as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_library_of_dotnet() {
        let long = "\u{6f22}".repeat(18);
        let vectors = [
            (
                "order:process:42",
                AdvisoryKey::Bigint(-7201617905283468966),
            ),
            (
                "job:cleanup-tokens",
                AdvisoryKey::Bigint(-576540130882464568),
            ),
            ("payment:refund:7", AdvisoryKey::Bigint(4955526036199542908)),
            (
                "user:login:\u{e9}",
                AdvisoryKey::Bigint(-3842291312407938174),
            ),
            (&long, AdvisoryKey::Bigint(-5707277204051710361)),
            ("0000000000000001", AdvisoryKey::Bigint(1)),
            ("ffffffffffffffff", AdvisoryKey::Bigint(-1)),
            ("FFFFFFFFFFFFFFFE", AdvisoryKey::Bigint(-2)),
            ("job:abc", AdvisoryKey::Pair(-708897876, 951173119)),
            ("123456789", AdvisoryKey::Pair(1657379654, -1382303630)),
            ("a", AdvisoryKey::Pair(-1023410177, -1)),
            ("", AdvisoryKey::Pair(2147483647, -1)),
            ("00000003,ffffffff", AdvisoryKey::Pair(3, -1)),
        ];
        for (name, made) in vectors {
            assert_eq!(key(name), made, "{name}");
        }
    }

    #[test]
    fn what_is_nearly_a_number_is_hashed() {
        for name in [
            "+000000000000001",
            "00000003,fffffff",
            "0000003,ffffffff",
            "00000003;ffffffff",
            "0000000000000001 ",
            "\u{e9}",
        ] {
            assert_eq!(key(name), AdvisoryKey::Bigint(hashed(name)), "{name}");
        }
    }
}
