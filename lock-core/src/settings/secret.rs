//! Text that reaches no log.

use std::fmt;

/// A value whose `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret<T = String>(pub(super) T);

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The error of the format would show what is there instead.
        let text = String::deserialize(deserializer);
        text.map(Self)
            .map_err(|_| serde::de::Error::custom("a setting of locks has to be text"))
    }
}
