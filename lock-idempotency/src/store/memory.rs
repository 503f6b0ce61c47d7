//! Records in the memory of the process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::LockError;
use tokio::time::Instant;

use crate::{IdempotencyStore, Record, RecordKey};

/// Fewer records than this are never looked through for those that have ended.
const FEW: usize = 1_024;

/// Keeps records in the memory of this process: for tests, and for services of one instance that may
/// forget at a restart. Clones share the records.
///
/// Lifetimes are counted by tokio's clock, so that a test can pause it; no step of the wall clock changes
/// them. What has ended is removed while records come in; memory is at most twice that of the live ones.
///
/// ```
/// use lock_idempotency::MemoryStore;
///
/// let store = MemoryStore::new();
/// assert!(store.is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    records: HashMap<RecordKey, (Record, Option<Instant>)>,
    /// How many records there are when those that have ended are removed next.
    full: usize,
}

impl MemoryStore {
    /// A store without records.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records it has in memory, those that have ended and are not removed yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept().records.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lifetime that ends beyond what the clock counts has no end.
fn is_live(until: Option<Instant>, now: Instant) -> bool {
    until.is_none_or(|until| now < until)
}

impl IdempotencyStore for MemoryStore {
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, LockError> {
        let now = Instant::now();
        let kept = self.kept();
        let found = kept.records.get(key);
        let live = found.filter(|(_, until)| is_live(*until, now));
        Ok(live.map(|(record, _)| record.clone()))
    }

    async fn put(
        &self,
        key: &RecordKey,
        record: &Record,
        lifetime: Duration,
    ) -> Result<bool, LockError> {
        let now = Instant::now();
        let mut kept = self.kept();
        if kept.records.len() >= kept.full.max(FEW) {
            kept.records.retain(|_, (_, until)| is_live(*until, now));
            kept.full = kept.records.len().saturating_mul(2);
        }
        let new = (record.clone(), now.checked_add(lifetime));
        match kept.records.entry(*key) {
            Entry::Occupied(old) if is_live(old.get().1, now) => return Ok(false),
            Entry::Occupied(mut old) => drop(old.insert(new)),
            Entry::Vacant(place) => drop(place.insert(new)),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;

    use super::*;
    use crate::Fingerprint;

    fn key(number: usize) -> RecordKey {
        RecordKey::new("ann", "/payments", &number.to_string())
    }

    fn record() -> Record {
        let fingerprint = Fingerprint::from_bytes([0; 32]);
        Record::new(fingerprint, Response::new(Bytes::new()))
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_is_removed_while_records_come_in() {
        let (store, second) = (MemoryStore::new(), Duration::from_secs(1));
        let mut most = 0;
        for number in 0..50_000 {
            // A thousand are live at any time.
            assert!(store.put(&key(number), &record(), second).await.unwrap());
            tokio::time::advance(Duration::from_millis(1)).await;
            most = most.max(store.len());
        }
        assert!(most <= 2 * FEW, "{most} records in memory");
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_there_to_the_end_of_its_lifetime() {
        let (store, day) = (MemoryStore::new(), Duration::from_secs(24 * 60 * 60));
        assert!(store.put(&key(0), &record(), day).await.unwrap());
        tokio::time::advance(day - Duration::from_millis(1)).await;
        assert_eq!(store.get(&key(0)).await.unwrap(), Some(record()));
        assert!(!store.put(&key(0), &record(), day).await.unwrap());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(store.get(&key(0)).await.unwrap(), None);
        assert!(store.put(&key(0), &record(), day).await.unwrap());
    }
}
