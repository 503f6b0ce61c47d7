//! Reads of orders in two levels: the memory of each instance and, where one is configured, a Redis
//! server that all of them share. Neither is a source of truth: without Redis the database is read.
//!
//! **How old a read can be.** An instance answers from its memory for [`FRESH`], counted from before
//! it looked elsewhere. A write removes the order from Redis before it is answered. So a caller that reads
//! a second after the answer to a write sees it, through whichever instance. What is left is a writer
//! that could not remove it, because it died or Redis did not answer: then Redis has the old order
//! for [`shared::KEPT`] at most. A change that must not be based on an old read is checked when it is
//! written, by its version.
//!
//! **One fill for all.** What is in neither level is read by one instance, under a lock; the others
//! wait for it, and then find it in Redis. The lock saves reads, and no more depends on it: a fill
//! can have read the order as it was before a write, and be late, longer than a writer could wait for
//! it. So a write marks the order in Redis as changed when it removes it, and Redis stores what a fill
//! has read only where the mark is still the one from before its read. Without Redis there is nothing
//! to share, and each instance reads for itself, once for all its requests.
//!
//! That there is *no* such order is known for [`FRESH`] in memory, and never in Redis.

mod shared;

use std::future::Future;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use lock_core::{FencingToken, LockError, LockName, LockProvider, lock_name};
use moka::Expiry;
use moka::future::Cache;

use crate::order_store::{Order, PostgresOrders, StoreError, WriteError};
use shared::Shared;

/// So old may be what an instance has in memory.
const FRESH: Duration = Duration::from_secs(1);

/// How many orders an instance has in memory, at most.
const CAPACITY: u64 = 10_000;

/// How long to wait for a fill that is under way. Who has waited in vain reads the database.
const FILL: Duration = Duration::from_secs(1);

/// The orders of the database, with what was read of them lately.
#[derive(Clone, Debug)]
pub(crate) struct CachedOrders {
    orders: PostgresOrders,
    local: Cache<String, Seen>,
    shared: Option<Shared>,
    locks: LockProvider,
}

/// An order, or that there is none, and when that was still so.
#[derive(Clone, Debug)]
struct Seen {
    order: Option<Order>,
    at: Instant,
}

/// Lets what was [`Seen`] expire by when it was seen, and not by when it was stored.
struct Age;

impl Expiry<String, Seen> for Age {
    fn expire_after_create(&self, _: &String, seen: &Seen, now: Instant) -> Option<Duration> {
        Some(FRESH.saturating_sub(now.saturating_duration_since(seen.at)))
    }

    fn expire_after_update(
        &self,
        id: &String,
        seen: &Seen,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(id, seen, now)
    }
}

impl CachedOrders {
    /// Needs Redis neither now nor later.
    pub(crate) fn open(
        orders: PostgresOrders,
        redis_url: Option<&str>,
        locks: LockProvider,
    ) -> anyhow::Result<Self> {
        let local = Cache::builder().max_capacity(CAPACITY).expire_after(Age);
        let shared = redis_url.map(Shared::open).transpose()?;
        match shared {
            Some(_) => tracing::info!("Orders: PostgreSQL, reads cached in memory and in Redis"),
            None => tracing::info!("Orders: PostgreSQL, reads cached in memory"),
        }
        Ok(Self {
            orders,
            local: local.build(),
            shared,
            locks,
        })
    }

    pub(crate) async fn find(&self, id: &str) -> Result<Option<Order>, StoreError> {
        let asked = Instant::now();
        loop {
            // Of all callers that miss together one looks elsewhere. Errors are not kept.
            let seen = self.local.try_get_with_by_ref(id, self.look(id)).await;
            let seen = seen.map_err(|error| StoreError::clone(&error))?;
            // Another's look that had begun long before, and took long, is too old for us.
            if asked.saturating_duration_since(seen.at) <= FRESH {
                return Ok(seen.order);
            }
        }
    }

    pub(crate) async fn save(
        &self,
        id: String,
        quantity: i32,
        version: Option<String>,
    ) -> Result<Order, WriteError> {
        let this = self.clone();
        to_the_end(async move {
            let saved = this.orders.save(&id, quantity, version.as_deref()).await;
            // Also after a failure: the write can have come through, and a conflict is often that of
            // a caller that has read an old order here.
            this.forget(&id).await;
            saved
        })
        .await
    }

    pub(crate) async fn mark_processed(
        &self,
        id: String,
        lock: LockName,
        token: FencingToken,
    ) -> Result<(), WriteError> {
        let this = self.clone();
        to_the_end(async move {
            let marked = this.orders.mark_processed(&id, &lock, token).await;
            this.forget(&id).await;
            marked
        })
        .await
    }

    /// What is known elsewhere.
    async fn look(&self, id: &str) -> Result<Seen, StoreError> {
        let at = Instant::now();
        let order = match &self.shared {
            None => self.orders.find(id).await,
            Some(shared) => match shared.get(id).await {
                Ok(None) => self.fill(shared, id).await,
                Ok(found) => Ok(found),
                Err(error) => {
                    tracing::debug!(%error, "orders are read without Redis");
                    self.orders.find(id).await
                }
            },
        };
        Ok(Seen { order: order?, at })
    }

    /// Reads an order for all instances.
    async fn fill(&self, shared: &Shared, id: &str) -> Result<Option<Order>, StoreError> {
        let filled = self.alone(id, async {
            // Before the database is read: a write from here on is another mark.
            let changed = shared.changed(id).await;
            // The holder before may have filled it.
            if let Ok(Some(order)) = shared.get(id).await {
                return Ok(Some(order));
            }
            let order = self.orders.find(id).await?;
            let stored = match (&order, changed) {
                (Some(order), Ok(changed)) => shared.put(order, &changed).await,
                (None, _) => Ok(()),
                (_, Err(error)) => Err(error),
            };
            if let Err(error) = stored {
                tracing::debug!(%error, "an order was not stored in Redis");
            }
            Ok(order)
        });
        match filled.await {
            Ok(order) => order,
            Err(error) => {
                tracing::debug!(%error, "an order is read without its lock");
                self.orders.find(id).await
            }
        }
    }

    /// Forgets what was read of an order, before its writer is answered.
    async fn forget(&self, id: &str) {
        if let Some(shared) = &self.shared
            && let Err(error) = shared.remove(id).await
        {
            tracing::warn!(%error, "an order stays in Redis as it was for {:?}", shared::KEPT);
        }
        self.local.invalidate(id).await;
    }

    /// Fills an order while no other instance does.
    async fn alone<F: Future>(&self, id: &str, fill: F) -> Result<F::Output, LockError> {
        let lock = self.locks.lock(lock_name!("order:read:<id>"))?;
        lock.run(FILL, fill).await
    }
}

/// Runs on when the caller leaves: between a write and what must follow it no caller may stop.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}
