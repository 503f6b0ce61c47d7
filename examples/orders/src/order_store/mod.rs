//! The orders: in the database of the service or, without one, in the memory of each instance.

mod error;
mod memory;
mod postgres;

use lock_core::{FencingToken, LockName, LockProvider};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use crate::config::Config;
use crate::order_cache::CachedOrders;

pub(crate) use error::{StoreError, WriteError};
use memory::MemoryOrders;
pub(crate) use postgres::PostgresOrders;

/// An order, as clients and the cache see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) quantity: i32,
    pub(crate) status: Status,
    /// Of the request that processed it.
    pub(crate) token: Option<FencingToken>,
    /// Another one after each change. Who changes the order tells which one it has read.
    pub(crate) version: String,
}

/// How far an order has come.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Open,
    Processed,
}

impl Order {
    /// How many, where an order is processed that was never placed: this is an example.
    const QUANTITY: i32 = 1;

    fn new(id: String, quantity: i32, token: Option<FencingToken>, version: String) -> Self {
        let status = token.map_or(Status::Open, |_| Status::Processed);
        Self {
            id,
            quantity,
            status,
            token,
            version,
        }
    }
}

/// Where the orders are.
#[derive(Clone, Debug)]
pub(crate) enum OrderStore {
    Memory(MemoryOrders),
    Postgres(CachedOrders),
}

impl OrderStore {
    /// In this database, if there is one.
    pub(crate) fn open(
        database: Option<PgPool>,
        config: &Config,
        locks: &LockProvider,
    ) -> anyhow::Result<Self> {
        let Some(pool) = database else {
            tracing::warn!("Orders: in memory (each instance has its own)");
            return Ok(Self::Memory(MemoryOrders::default()));
        };
        let orders = PostgresOrders::new(pool);
        let redis_url = config.redis_url.as_deref();
        let cached = CachedOrders::open(orders, redis_url, locks.clone())?;
        Ok(Self::Postgres(cached))
    }

    /// The order with this id, if there is one; from the database it can be a second old.
    pub(crate) async fn find(&self, id: &str) -> Result<Option<Order>, StoreError> {
        match self {
            Self::Memory(orders) => Ok(orders.find(id)),
            Self::Postgres(orders) => orders.find(id).await,
        }
    }

    /// Places a new order, without a `version`; with one, changes the order that has it.
    pub(crate) async fn save(
        &self,
        id: String,
        quantity: i32,
        version: Option<String>,
    ) -> Result<Order, WriteError> {
        match self {
            Self::Memory(orders) => orders.save(id, quantity, version.as_deref()),
            Self::Postgres(orders) => orders.save(id, quantity, version).await,
        }
    }

    /// Marks an order as processed by the holder of `lock` with this token, unless a later holder has
    /// done so.
    ///
    /// This is what makes the lock safe beyond its own limits: a process that was paused so long that
    /// it lost its lock cannot overwrite what the next holder wrote.
    pub(crate) async fn mark_processed(
        &self,
        id: String,
        lock: LockName,
        token: FencingToken,
    ) -> Result<(), WriteError> {
        match self {
            Self::Memory(orders) => orders.mark_processed(id, token),
            Self::Postgres(orders) => orders.mark_processed(id, lock, token).await,
        }
    }
}
