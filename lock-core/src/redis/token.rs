//! Tokens on demand: plain data on the way from a grant to the server.

use std::time::Duration;

use super::key::{Key, Owner};
use crate::backend::Lease;
use crate::server::Reply;

/// A token of a lock that is held, for a holder to whom it was handed over.
pub(super) struct Token {
    pub(super) key: Key,
    pub(super) owner: Owner,
    pub(super) lease: Lease,
    pub(super) reply: Reply<u64>,
    /// When it is not asked for again, on CLOCK_BOOTTIME.
    pub(super) until: Duration,
}
