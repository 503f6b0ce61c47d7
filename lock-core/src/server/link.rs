//! Connections of a driver, which come and go.

#[cfg(feature = "redis")]
use std::time::Duration;

#[cfg(feature = "redis")]
use tokio::time::Instant;

/// Which connection a request went over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkId {
    /// The place of the server, which may not have the lane of the request any more.
    pub(crate) node: usize,
    /// Counts the connections of a place.
    pub(crate) generation: u64,
    /// Counts the servers that were met: one that was started again is another.
    pub(crate) server: u64,
}

/// The connection of a place: `C` once it is there; `W` tells which one is awaited, while it is made.
#[cfg(feature = "redis")]
pub(crate) enum Link<C, W = ()> {
    Down { retry_at: Instant },
    Connecting(W),
    Up(C),
}

#[cfg(feature = "redis")]
impl<C, W> Link<C, W> {
    /// There is none, and one can be made now.
    pub(crate) fn down() -> Self {
        Self::down_for(Duration::ZERO)
    }

    /// There is none, and one can be made after this long.
    pub(crate) fn down_for(pause: Duration) -> Self {
        Self::Down {
            retry_at: Instant::now() + pause,
        }
    }

    /// That which is there.
    pub(crate) const fn up(&self) -> Option<&C> {
        match self {
            Self::Up(connection) => Some(connection),
            Self::Down { .. } | Self::Connecting(_) => None,
        }
    }

    /// When one can be made, where there is none and none is being made.
    pub(crate) const fn retry_at(&self) -> Option<Instant> {
        match self {
            Self::Down { retry_at } => Some(*retry_at),
            Self::Connecting(_) | Self::Up(_) => None,
        }
    }

    /// Whether one can be made now.
    pub(crate) fn is_due(&self) -> bool {
        self.retry_at().is_some_and(|at| at <= Instant::now())
    }
}
