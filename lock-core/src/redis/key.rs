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
        let digits = format!("{:016x}{:016x}", self.connection, self.number);
        text.copy_from_slice(digits.as_bytes());
        text
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
