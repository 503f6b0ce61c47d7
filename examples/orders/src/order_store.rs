//! The orders. In memory, so each instance has its own: it stands for the database of the service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lock_core::FencingToken;

/// Which orders were processed, and the token of the last writer of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct OrderStore(Arc<Mutex<HashMap<String, FencingToken>>>);

impl OrderStore {
    /// Who wrote the order last, if anybody did.
    pub(crate) fn processed_by(&self, id: &str) -> Option<FencingToken> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .copied()
    }

    /// Marks an order as processed, unless a later holder of its lock has written it: `false` then.
    ///
    /// This is what makes the lock safe beyond its own limits: a process that was paused so long that
    /// it lost its lock cannot overwrite what the next holder wrote. In SQL:
    ///
    /// ```sql
    /// UPDATE orders SET status = 'processed', token = $2 WHERE id = $1 AND token <= $2
    /// ```
    pub(crate) fn mark_processed(&self, id: &str, token: FencingToken) -> bool {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match orders.get(id) {
            Some(newer) if *newer > token => false,
            _ => {
                orders.insert(id.to_owned(), token);
                true
            }
        }
    }
}
