//! Records in the memory of the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::LockError;
use tokio::time::Instant;

use crate::{IdempotencyStore, Record, RecordKey};

/// Keeps records in the memory of this process: for tests, and for services of one instance that may
/// forget at a restart. Clones share the records.
///
/// Lifetimes are counted by tokio's clock, so that a test can pause it; no step of the wall clock changes
/// them. What has ended is removed when the next record comes in, also after a peak; the memory follows.
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
    /// A tree, which gives memory back as it shrinks.
    records: BTreeMap<RecordKey, (Record, Option<Instant>)>,
    /// The ends of those that have one, the next first.
    ends: BTreeSet<(Instant, RecordKey)>,
}

impl Kept {
    /// Removes the records that have ended. A record and its end go together: its key can be put again with another.
    fn remove_ended(&mut self, now: Instant) {
        while let Some(&(end, key)) = self.ends.first()
            && !is_live(Some(end), now)
        {
            self.ends.pop_first();
            self.records.remove(&key);
        }
    }
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
        kept.remove_ended(now);
        // What is left is live.
        if kept.records.contains_key(key) {
            return Ok(false);
        }
        let until = now.checked_add(lifetime);
        kept.records.insert(*key, (record.clone(), until));
        kept.ends.extend(until.map(|until| (until, *key)));
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
        assert_eq!(most, 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_records_of_a_peak_are_gone_with_the_first_that_comes_after_it() {
        let (store, second) = (MemoryStore::new(), Duration::from_secs(1));
        for number in 0..10_000 {
            assert!(store.put(&key(number), &record(), second).await.unwrap());
        }
        assert_eq!(store.len(), 10_000);
        tokio::time::advance(second).await;
        assert!(store.put(&key(10_000), &record(), second).await.unwrap());
        assert_eq!(store.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_was_put_again_has_the_new_end_and_not_the_old_one() {
        let (store, second) = (MemoryStore::new(), Duration::from_secs(1));
        let put = async |number, lifetime| store.put(&key(number), &record(), lifetime).await;
        assert!(put(0, second).await.unwrap());
        assert!(!put(0, 5 * second).await.unwrap(), "the first stays");
        tokio::time::advance(second).await;
        assert!(put(0, 5 * second).await.unwrap());
        // Without an end.
        assert!(put(1, Duration::MAX).await.unwrap());
        for number in 2..6 {
            tokio::time::advance(second).await;
            assert!(put(number, second).await.unwrap());
            assert!(store.get(&key(0)).await.unwrap().is_some());
            assert_eq!(store.len(), 3);
        }
        tokio::time::advance(second).await;
        assert!(put(0, second).await.unwrap());
        assert_eq!(store.len(), 2);
        assert!(store.get(&key(1)).await.unwrap().is_some());
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
