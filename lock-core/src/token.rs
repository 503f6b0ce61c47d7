//! Fencing tokens.

use std::fmt;

/// A number that grows with every later holder of the same lock.
///
/// Send it along with each write; storage that remembers the newest token it has seen for the lock
/// can refuse a writer whose lock was lost meanwhile (see Martin Kleppmann, "How to do distributed
/// locking", 2016). Tokens of one lock are ordered; tokens of different locks say nothing about
/// each other.
///
/// As text and in serde it is a decimal string: JSON numbers lose digits above 2^53.
///
/// ```
/// use lock_core::FencingToken;
///
/// let (older, newer) = (FencingToken::new(41), FencingToken::new(42));
/// assert!(older < newer);
/// assert_eq!(newer.to_string(), "42");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(u64);

impl FencingToken {
    /// The token of this value, as read back from storage.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The value, to store and compare.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<FencingToken> for u64 {
    fn from(token: FencingToken) -> Self {
        token.0
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for FencingToken {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for FencingToken {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}
