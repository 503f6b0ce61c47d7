//! Refunds that were made, and what was answered under an `Idempotency-Key`.
//!
//! In the database the two are one transaction, with the fence of the lock: wherever an instance dies, a refund
//! is made and its answer is known, or neither. Elsewhere the layer stores the answer after the refund, and an
//! instance that dies in between makes the next request with the key refund again.

use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use lock_core::{FencingToken, LockError, LockName, LockProvider};
use lock_idempotency::{
    IdempotencyKey, IdempotencyLayer, MemoryStore, PostgresStore, RedisStore, StoreInError,
};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use sqlx::PgPool;

use crate::config::Config;
use crate::database::{FENCE, in_time};
use crate::order_store::StoreError;

/// Where refunds and answers are.
#[derive(Clone, Debug)]
pub(crate) enum Refunds {
    Memory(MemoryStore),
    Redis(RedisStore),
    Postgres(PgPool, PostgresStore),
}

/// Why a refund was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefundNotWritten {
    /// The lock was lost, or a later holder has written.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Another request with the key has: this is its answer.
    #[error(transparent)]
    Answered(#[from] StoreInError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RefundNotWritten {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Refunds {
    /// In this database, if there is one.
    pub(crate) async fn open(database: Option<PgPool>, config: &Config) -> anyhow::Result<Self> {
        if let Some(pool) = database {
            let answers = PostgresStore::from_pool(pool.clone()).await?;
            return Ok(Self::Postgres(pool, answers));
        }
        let Some(url) = &config.redis_url else {
            tracing::warn!("Answers to refunds: in memory (each instance has its own)");
            return Ok(Self::Memory(MemoryStore::new()));
        };
        let client = lock_core::redis::client(url)?;
        // The next request is the retry.
        let settings = ConnectionManagerConfig::new().set_number_of_retries(0);
        let connection = ConnectionManager::new_lazy_with_config(client, settings)?;
        Ok(Self::Redis(
            RedisStore::new(connection).prefix("orders:refund:"),
        ))
    }

    /// The layer of keys. `caller` is whose the keys are.
    pub(crate) fn layer(
        &self,
        locks: LockProvider,
        caller: fn(&Parts) -> Option<String>,
    ) -> Result<IdempotencyLayer, LockError> {
        match self.clone() {
            Self::Memory(answers) => IdempotencyLayer::new(locks, answers, caller),
            Self::Redis(answers) => IdempotencyLayer::new(locks, answers, caller),
            Self::Postgres(_, answers) => IdempotencyLayer::new(locks, answers, caller),
        }
    }

    /// Writes a refund down that was made under this lock, and its answer where the request has a key.
    pub(crate) async fn write(
        &self,
        payment: &str,
        (lock, token): (&LockName, FencingToken),
        key: Option<&IdempotencyKey>,
        answer: Response,
    ) -> Result<Response, RefundNotWritten> {
        let Self::Postgres(pool, answers) = self else {
            return Ok(answer);
        };
        in_time(async {
            let mut tx = pool.begin().await?;
            FENCE.check(&mut tx, lock, token).await?;
            let write = "INSERT INTO refunds (payment, token) VALUES ($1, $2)";
            let write = sqlx::query(write).bind(payment).bind(token);
            write.execute(&mut *tx).await?;
            let answer = match key {
                Some(key) => answers
                    .store_in(&mut tx, key, answer)
                    .await?
                    .into_response(),
                None => answer,
            };
            tx.commit().await?;
            Ok(answer)
        })
        .await
    }
}
