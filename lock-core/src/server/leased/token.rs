//! Tokens on demand: plain data on the way from a grant to the server.

use std::time::Duration;

use super::key::Owner;
use crate::backend::Lease;
use crate::server::client::Reply;

/// A token of a lock that is held, for a holder to whom it was handed over.
pub(crate) struct Token<K> {
    pub(crate) key: K,
    pub(crate) owner: Owner,
    pub(crate) lease: Lease,
    pub(crate) reply: Reply<u64>,
    /// When it is not asked for again, on CLOCK_BOOTTIME.
    pub(crate) until: Duration,
}
