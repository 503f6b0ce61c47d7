//! Until when a request holds its lock.

use http_body::Body;

/// Until when a request holds its lock.
///
/// ```
/// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
/// # use lock_tower::{HoldUntil, LockLayer};
/// # let locks = LockProvider::new(MemoryBackend::new());
/// // A proxy, whose body is of a known size and comes from elsewhere while it is sent:
/// let layer = LockLayer::new(locks, "file:change:<path>")?.hold_until(HoldUntil::BodyEnd);
/// # Ok::<(), LockError>(())
/// ```
///
/// # Default
///
/// [`WorkDone`](Self::WorkDone).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HoldUntil {
    /// Until the work is done: until the handler returns when its body is complete by then (its
    /// exact size is known, or it is empty), else until the end of the body, which is still being
    /// made.
    ///
    /// What tells is the body itself, never a `content-length` header. A body of known size that is
    /// made while it is sent looks complete and is not: proxies need [`BodyEnd`](Self::BodyEnd).
    #[default]
    WorkDone,
    /// Until the handler returns, whatever the body still does.
    Response,
    /// Until the body was made to its end, its trailers included, or was dropped.
    BodyEnd,
}

impl HoldUntil {
    /// Whether all is done with the handler's return.
    pub(crate) fn is_over_with<B: Body>(self, body: &B) -> bool {
        match self {
            Self::WorkDone => body.is_end_stream() || body.size_hint().exact().is_some(),
            Self::Response => true,
            Self::BodyEnd => body.is_end_stream(),
        }
    }
}
