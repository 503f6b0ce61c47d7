//! Questions who holds a lock: plain data on the way to the server.

use std::time::Duration;

use crate::Holder;
use crate::server::client::Reply;

/// Who holds the lock of this key, if any client does.
pub(crate) struct WhoHolds<K> {
    pub(crate) key: K,
    pub(crate) reply: Reply<Option<Holder>>,
    /// When it is not asked any more, on CLOCK_BOOTTIME.
    pub(crate) until: Duration,
}
