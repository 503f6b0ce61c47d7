//! Where records are kept.

mod erased;
mod memory;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
pub(crate) mod redis;

use std::future::Future;
use std::time::Duration;

pub(crate) use erased::ErasedStore;
use lock_core::LockError;
pub use memory::MemoryStore;

use crate::{Record, RecordKey};

/// Keeps the responses to requests by their keys.
///
/// A store need not know of requests in progress: the lock of a key does. What it has to promise:
///
/// - *the first record stays.* Of several for one key the first is kept until its lifetime is over, also
///   when they come at the same time: a holder of the lock that was frozen can come late;
/// - *what was acknowledged is found*, by every instance of the service, until its lifetime is over. A replica
///   that lags, or a cache that may evict, answers a retry by running it again;
/// - *an error is not an absence.* A store that cannot tell answers
///   [`LockError::unavailable`], and the request is answered 503.
///
/// The layer bounds each call by [`store_timeout`](crate::IdempotencyLayer::store_timeout).
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Arc, Mutex};
/// use std::time::{Duration, Instant};
///
/// use lock_core::LockError;
/// use lock_idempotency::{IdempotencyStore, Record, RecordKey};
///
/// /// Records as bytes in a map, as a key-value store would keep them.
/// #[derive(Clone, Default)]
/// struct Shelf(Arc<Mutex<HashMap<[u8; 32], (Vec<u8>, Instant)>>>);
///
/// impl IdempotencyStore for Shelf {
///     async fn get(&self, key: &RecordKey) -> Result<Option<Record>, LockError> {
///         let shelf = self.0.lock().map_err(|_| LockError::unavailable("the shelf is broken"))?;
///         let kept = shelf.get(key.as_bytes()).filter(|(_, until)| Instant::now() < *until);
///         kept.map(|(bytes, _)| Record::decode(bytes.clone())).transpose()
///     }
///
///     async fn put(&self, key: &RecordKey, record: &Record, lifetime: Duration) -> Result<bool, LockError> {
///         let mut shelf = self.0.lock().map_err(|_| LockError::unavailable("the shelf is broken"))?;
///         let now = Instant::now();
///         if shelf.get(key.as_bytes()).is_some_and(|(_, until)| now < *until) {
///             return Ok(false); // the first stays
///         }
///         shelf.insert(*key.as_bytes(), (record.encode().to_vec(), now + lifetime));
///         Ok(true)
///     }
/// }
/// # fn is_store(_: impl IdempotencyStore) {}
/// # is_store(Shelf::default());
/// ```
pub trait IdempotencyStore: Send + Sync + 'static {
    /// The record of this key, if there is one whose lifetime is not over.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](lock_core::LockErrorKind::Unavailable) when the store does not know now,
    /// [`Misconfigured`](lock_core::LockErrorKind::Misconfigured) when an operator has to act first.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    fn get(
        &self,
        key: &RecordKey,
    ) -> impl Future<Output = Result<Option<Record>, LockError>> + Send;

    /// Keeps the record for its lifetime, unless there is one for this key. `false`: there is.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). The record may have been stored all the same.
    ///
    /// # Cancel safety
    ///
    /// When it is dropped, the record was stored whole or not at all.
    fn put(
        &self,
        key: &RecordKey,
        record: &Record,
        lifetime: Duration,
    ) -> impl Future<Output = Result<bool, LockError>> + Send;
}
