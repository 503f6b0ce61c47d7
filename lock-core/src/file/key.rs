//! The names of lock files. The form is versioned and frozen: programs of different versions meet at the
//! same files.

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

use crate::LockName;

/// Before what makes a file name. Part of every key: never to be changed.
const PREFIX: &[u8] = b"lock-file-v1\0";

/// Before the hash in a file name.
const VERSION: &str = "v1-";

/// 160 bits in base32.
const HASH_LEN: usize = 32;

/// The file name, without extension, of a lock: `v1-` and 160 bits of SHA-256 over
/// `"lock-file-v1" NUL namespace NUL name` in lower-case base32 without padding: 35 bytes.
///
/// A hash, since an escaped name can be longer than a file name may be; base32, since some file
/// systems do not tell upper from lower case. A name contains no NUL, so that no two pairs of
/// namespace and name give one text.
pub(super) fn file_stem(namespace: &str, name: &LockName) -> String {
    let digest = Sha256::new_with_prefix(PREFIX)
        .chain_update(namespace)
        .chain_update(b"\0")
        .chain_update(name.as_str())
        .finalize();
    let mut stem = BASE32_NOPAD.encode(&digest[..20]);
    stem.make_ascii_lowercase();
    stem.insert_str(0, VERSION);
    stem
}

/// Whether a file name without extension is one that [`file_stem`] makes.
pub(super) fn is_file_stem(stem: &str) -> bool {
    let hash = stem.strip_prefix(VERSION).unwrap_or_default();
    hash.len() == HASH_LEN
        && hash
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(is_file_stem(stem), "{stem}");
        }
    }

    #[test]
    fn names_of_others_are_not_taken_for_ours() {
        let ours = "v1-mwy6ryselpbhixmast2zfv5q2mabha7k";
        for other in [
            "",
            "Cargo",
            "v1-",
            "v1-a",
            &ours[3..],
            &ours[..34],
            &format!("{ours}a"),
            &ours.replace("v1", "v2"),
            &ours.replace('7', "1"),
            &ours.to_uppercase(),
        ] {
            assert!(!is_file_stem(other), "{other}");
        }
    }

    #[test]
    fn namespace_and_name_do_not_run_into_each_other() {
        let stem = |namespace, name: &str| file_stem(namespace, &name.parse().unwrap());
        assert_ne!(stem("a:b", "c:d:e"), stem("a", "b:c:d"));
        assert_ne!(stem("a:", "b:c:d"), stem("a", "b:c:d"));
        assert_ne!(stem("a\0", "b:c:d"), stem("a", "b:c:d"));
    }
}
