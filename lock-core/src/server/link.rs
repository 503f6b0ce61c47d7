//! Connections of a driver, as requests know them.

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
