//! The level that all instances share.

use std::io;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, RedisResult};

use crate::order_store::Order;

/// So long may Redis have an order.
pub(super) const KEPT: Duration = Duration::from_secs(30);

/// So long is it known that an order was changed: many times longer than a fill can last, whose reads
/// have their bounds and which ends with its lock.
const CHANGE_KEPT: Duration = Duration::from_secs(10 * 60);

/// Stores an order, unless it was changed since its mark was read.
const PUT: &str = "if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end \
                   redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) return 1";

/// So long may Redis take: it is here to save time.
const ANSWER: Duration = Duration::from_millis(250);

/// Orders in Redis. It connects when it is asked, and again after a loss.
#[derive(Clone, Debug)]
pub(super) struct Shared(ConnectionManager);

impl Shared {
    pub(super) fn open(url: &str) -> anyhow::Result<Self> {
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER))
            // The next request is the retry.
            .set_number_of_retries(0);
        let client = lock_core::redis::client(url)?;
        let connection = ConnectionManager::new_lazy_with_config(client, settings)?;
        Ok(Self(connection))
    }

    pub(super) async fn get(&self, id: &str) -> RedisResult<Option<Order>> {
        let json: Option<Vec<u8>> = self.0.clone().get(key(id)).await?;
        // What another version of this service has stored is as good as nothing.
        Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
    }

    /// The mark of the last change, to be read before the order is.
    pub(super) async fn changed(&self, id: &str) -> RedisResult<Changed> {
        let mark: Option<Vec<u8>> = self.0.clone().get(change_key(id)).await?;
        Ok(Changed(mark.unwrap_or_default()))
    }

    /// Stores what was read after this mark. One step in Redis: a change comes before it, and then
    /// nothing is stored, or after it, and then it removes what was.
    pub(super) async fn put(&self, order: &Order, Changed(mark): &Changed) -> RedisResult<()> {
        let json = serde_json::to_vec(order).map_err(io::Error::from)?;
        let mut put = redis::cmd("EVAL");
        put.arg(PUT).arg(2).arg(key(&order.id));
        put.arg(change_key(&order.id)).arg(mark);
        put.arg(json).arg(KEPT.as_secs());
        put.exec_async(&mut self.0.clone()).await
    }

    /// Removes an order that was changed, and marks that it was.
    pub(super) async fn remove(&self, id: &str) -> RedisResult<()> {
        let mut remove = redis::pipe();
        // In one step, or a fill could come between the two.
        remove.atomic().incr(change_key(id), 1).ignore();
        let kept = CHANGE_KEPT.as_secs().cast_signed();
        remove.expire(change_key(id), kept).ignore();
        remove.del(key(id)).ignore();
        remove.exec_async(&mut self.0.clone()).await
    }
}

/// Which change of an order was the last; none that is remembered is one as well.
#[derive(Debug)]
pub(super) struct Changed(Vec<u8>);

/// The number is for another meaning of what is stored.
fn key(id: &str) -> String {
    format!("orders:order:1:{id}")
}

fn change_key(id: &str) -> String {
    format!("orders:change:1:{id}")
}
