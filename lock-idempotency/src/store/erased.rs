//! A store of any type, for the layer.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use lock_core::LockError;

use crate::{IdempotencyStore, Record, RecordKey};

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, LockError>> + Send + 'a>>;

/// [`IdempotencyStore`] with its futures in boxes.
pub(crate) trait ErasedStore: Send + Sync {
    fn get<'a>(&'a self, key: &'a RecordKey) -> Answer<'a, Option<Record>>;

    fn put<'a>(
        &'a self,
        key: &'a RecordKey,
        record: &'a Record,
        lifetime: Duration,
    ) -> Answer<'a, bool>;
}

impl<S: IdempotencyStore> ErasedStore for S {
    fn get<'a>(&'a self, key: &'a RecordKey) -> Answer<'a, Option<Record>> {
        Box::pin(IdempotencyStore::get(self, key))
    }

    fn put<'a>(
        &'a self,
        key: &'a RecordKey,
        record: &'a Record,
        lifetime: Duration,
    ) -> Answer<'a, bool> {
        Box::pin(IdempotencyStore::put(self, key, record, lifetime))
    }
}
