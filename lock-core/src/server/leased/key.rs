//! What a lock is known by in a store of leased keys, and who holds it there.

use std::hash::Hash;

use crate::LockMode;

/// What the driver knows a lock by.
pub trait LockKey: Clone + Eq + Hash + Send + Sync + 'static {}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> LockKey for K {}

/// One acquire that was sent once: no two have the same owner, in whichever process. One that is sent
/// again, over another connection, is another: copies of a virtual machine go on with the same
/// acquires, and make connections of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    /// Of the connection, at random.
    pub(crate) connection: u64,
    /// Of the acquire, counted in the process.
    pub(crate) number: u64,
    pub(crate) part: Part,
}

/// What an owner has of a lock, or asks for. It goes with the owner wherever that goes: what is renewed, given back
/// or asked for again is of the same part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    not(feature = "postgres"),
    allow(unreachable_pub, reason = "lease tables show it to tests")
)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// A share, beside those of other readers.
    Share,
    /// The place of a writer that waits, before readers that come later. Where the store has such, it is taken with
    /// an acquire that is refused, and given back with a release.
    Place,
}

impl From<LockMode> for Part {
    fn from(mode: LockMode) -> Self {
        match mode {
            LockMode::Exclusive => Self::Whole,
            LockMode::Shared => Self::Share,
        }
    }
}

impl Owner {
    /// Its 32 bytes.
    #[cfg(any(test, feature = "redis"))]
    pub(crate) fn text(self) -> [u8; 32] {
        let mut text = [0; 32];
        let (connection, number) = text.split_at_mut(16);
        write_hex(self.connection, connection);
        write_hex(self.number, number);
        text
    }
}

/// As `{:016x}`, which takes a tenth of all that the client does for a lock.
#[cfg(any(test, feature = "redis"))]
fn write_hex(number: u64, into: &mut [u8]) {
    for (digit, shift) in into.iter_mut().zip((0..16).rev()) {
        *digit = b"0123456789abcdef"[(number >> (4 * shift)) as usize & 0xf];
    }
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
            let part = Part::Whole;
            let owner = Owner {
                connection,
                number,
                part,
            };
            let text = format!("{connection:016x}{number:016x}");
            assert_eq!(owner.text(), *text.as_bytes());
        }
    }
}
