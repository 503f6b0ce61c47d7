//! Orders in memory: enough to try the locks without a database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lock_core::{FencingToken, LockError};

use super::{Order, WriteError};

/// The orders of this instance.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryOrders(Arc<Mutex<HashMap<String, Row>>>);

#[derive(Debug)]
struct Row {
    quantity: i32,
    token: Option<FencingToken>,
    version: u64,
}

impl Row {
    const NEW: Self = Self {
        quantity: Order::QUANTITY,
        token: None,
        version: 0,
    };

    fn order(&self, id: String) -> Order {
        Order::new(id, self.quantity, self.token, self.version.to_string())
    }
}

impl MemoryOrders {
    pub(super) fn find(&self, id: &str) -> Option<Order> {
        self.rows().get(id).map(|row| row.order(id.to_owned()))
    }

    pub(super) fn save(
        &self,
        id: String,
        quantity: i32,
        version: Option<&str>,
    ) -> Result<Order, WriteError> {
        let mut rows = self.rows();
        let now = rows.get(&id).map(|row| row.version.to_string());
        if now.as_deref() != version {
            return Err(WriteError::Changed);
        }
        let row = rows.entry(id.clone()).or_insert(Row::NEW);
        row.quantity = quantity;
        row.version += 1;
        Ok(row.order(id))
    }

    pub(super) fn mark_processed(&self, id: String, token: FencingToken) -> Result<(), WriteError> {
        let mut rows = self.rows();
        let row = rows.entry(id).or_insert(Row::NEW);
        if row.token.is_some_and(|newest| newest > token) {
            return Err(LockError::lost("a later holder has written the order").into());
        }
        row.token = Some(token);
        row.version += 1;
        Ok(())
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<String, Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
