//! Keys and owners, as the scripts see them.

use std::sync::Arc;
use std::time::Duration;

use crate::LockName;
use crate::name::key::redis_key;

/// How many hash tags the keys carry.
pub(super) const BUCKETS: usize = 256;

/// The key of a lock, which is the name of its channel as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) text: Arc<str>,
    pub(super) bucket: u8,
}

impl Key {
    pub(super) fn new(namespace: &str, name: &LockName) -> Self {
        let (bucket, text) = redis_key(namespace, name);
        Self {
            text: text.into(),
            bucket,
        }
    }
}

/// One acquire that was sent once: no two have the same owner, in whichever process. One that is sent
/// again, over another connection, is another: copies of a virtual machine go on with the same
/// acquires, and make connections of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    /// Of the connection, at random.
    pub(super) connection: u64,
    /// Of the acquire, counted in the process.
    pub(super) number: u64,
}

impl Owner {
    /// Its 32 bytes.
    pub(super) fn text(self) -> [u8; 32] {
        let mut text = [0; 32];
        let (connection, number) = text.split_at_mut(16);
        write_hex(self.connection, connection);
        write_hex(self.number, number);
        text
    }

    /// What the value of its lock begins with: itself and a space.
    pub(super) fn prefix(self) -> [u8; 33] {
        let mut prefix = [b' '; 33];
        prefix[..32].copy_from_slice(&self.text());
        prefix
    }
}

/// As `{:016x}`, which takes a tenth of all that the client does for a lock.
fn write_hex(number: u64, into: &mut [u8]) {
    for (digit, shift) in into.iter_mut().zip((0..16).rev()) {
        *digit = b"0123456789abcdef"[(number >> (4 * shift)) as usize & 0xf];
    }
}

/// Whole milliseconds, as Redis takes them.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_two_numbers_in_hexadecimal() {
        for (connection, number) in [
            (0, 1),
            (u64::MAX, 0x0123_4567_89ab_cdef),
            (1 << 63, u64::MAX),
        ] {
            let owner = Owner { connection, number };
            let text = format!("{connection:016x}{number:016x}");
            assert_eq!(owner.text(), *text.as_bytes());
            assert_eq!(owner.prefix(), *format!("{text} ").as_bytes());
        }
    }
}
