//! The database of the service, where one is configured.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use lock_core::postgres::Fence;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::time::timeout;

use crate::order_store::StoreError;

/// So long may the database take; the driver itself waits for ever for one that hangs.
const ANSWER: Duration = Duration::from_secs(5);

/// So long may a request wait for a connection.
const CONNECTION: Duration = Duration::from_secs(2);

/// Refuses writes of holders that were overtaken.
pub(crate) const FENCE: Fence = Fence::new();

/// Connects, and makes the tables.
pub(crate) async fn open(url: &str) -> anyhow::Result<PgPool> {
    let options: PgConnectOptions = url.parse()?;
    let pool = PgPoolOptions::new().acquire_timeout(CONNECTION);
    let pool = pool.connect_lazy_with(options.application_name("orders"));
    let migrated = migrate(&pool).await;
    migrated.context("cannot make the tables of the orders")?;
    Ok(pool)
}

/// Instances start at the same time, and two `CREATE TABLE IF NOT EXISTS` together can fail: one
/// instance after the other. This is work inside one database, so a lock of its transaction does, wherever
/// the locks of the service are.
async fn migrate(pool: &PgPool) -> anyhow::Result<()> {
    let mut tx = pool.begin().await?;
    let alone = "SELECT pg_advisory_xact_lock(hashtext('orders: tables'))";
    sqlx::query(alone).execute(&mut *tx).await?;
    Fence::migrate(&mut *tx).await?;
    let orders = "CREATE TABLE IF NOT EXISTS orders \
         (id text PRIMARY KEY, quantity integer NOT NULL, token bigint)";
    sqlx::query(orders).execute(&mut *tx).await?;
    let refunds = "CREATE TABLE IF NOT EXISTS refunds \
         (id bigserial PRIMARY KEY, payment text NOT NULL, token bigint NOT NULL)";
    sqlx::query(refunds).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

/// What the database does not answer in time is an error.
pub(crate) async fn in_time<T, E: From<StoreError>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(ANSWER, work)
        .await
        .unwrap_or_else(|_| Err(StoreError::Silent.into()))
}
