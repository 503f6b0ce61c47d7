//! The level that all instances share.

use std::io;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, RedisResult, SetExpiry, SetOptions};

use crate::order_store::Order;

/// So long may Redis have an order.
pub(super) const KEPT: Duration = Duration::from_secs(30);

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

    pub(super) async fn put(&self, order: &Order) -> RedisResult<()> {
        let json = serde_json::to_vec(order).map_err(io::Error::from)?;
        let expiry = SetOptions::default().with_expiration(SetExpiry::EX(KEPT.as_secs()));
        self.0
            .clone()
            .set_options(key(&order.id), json, expiry)
            .await
    }

    pub(super) async fn remove(&self, id: &str) -> RedisResult<()> {
        self.0.clone().del(key(id)).await
    }
}

/// The number is for another meaning of what is stored.
fn key(id: &str) -> String {
    format!("orders:order:1:{id}")
}
