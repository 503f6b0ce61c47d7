//! Orders in PostgreSQL.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use lock_core::postgres::Fence;
use lock_core::{FencingToken, LockName};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::query::QueryAs;
use sqlx::{FromRow, PgPool, Postgres};
use tokio::time::timeout;

use super::{Order, StoreError, WriteError};

/// So long may the database take; the driver itself waits for ever for one that hangs.
const ANSWER: Duration = Duration::from_secs(5);

/// So long may a request wait for a connection.
const CONNECTION: Duration = Duration::from_secs(2);

/// Refuses writes of holders that were overtaken.
const FENCE: Fence = Fence::new();

/// The orders in the database.
#[derive(Clone, Debug)]
pub(crate) struct PostgresOrders(PgPool);

impl PostgresOrders {
    pub(super) async fn open(url: &str) -> anyhow::Result<Self> {
        let options: PgConnectOptions = url.parse()?;
        let pool = PgPoolOptions::new().acquire_timeout(CONNECTION);
        let pool = pool.connect_lazy_with(options.application_name("orders"));
        let migrated = migrate(&pool).await;
        migrated.context("cannot make the tables of the orders")?;
        Ok(Self(pool))
    }

    pub(crate) async fn find(&self, id: &str) -> Result<Option<Order>, StoreError> {
        let find = "SELECT quantity, token, xmin::text FROM orders WHERE id = $1";
        let find = self.run(sqlx::query_as(find).bind(id));
        let row = in_time(async { Ok::<_, StoreError>(find.await?) }).await?;
        Ok(row
            .map(|(quantity, token, version)| Order::new(id.to_owned(), quantity, token, version)))
    }

    /// The version is `xmin`, the transaction that wrote the row: PostgreSQL keeps it for every row,
    /// and each change is another one. Of two that have read the same version the second changes
    /// nothing: it waits for the first, and looks again at what that has left.
    pub(crate) async fn save(
        &self,
        id: &str,
        quantity: i32,
        version: Option<&str>,
    ) -> Result<Order, WriteError> {
        let save = match version {
            None => sqlx::query_as(
                "INSERT INTO orders (id, quantity) VALUES ($1, $2) ON CONFLICT DO NOTHING \
                 RETURNING token, xmin::text",
            ),
            Some(_) => sqlx::query_as(
                "UPDATE orders SET quantity = $2 WHERE id = $1 AND xmin::text = $3 \
                 RETURNING token, xmin::text",
            ),
        };
        let save = save.bind(id).bind(quantity);
        let save = match version {
            None => save,
            Some(version) => save.bind(version),
        };
        let row = in_time(async { Ok::<_, WriteError>(self.run(save).await?) });
        let (token, version) = row.await?.ok_or(WriteError::Changed)?;
        Ok(Order::new(id.to_owned(), quantity, token, version))
    }

    pub(crate) async fn mark_processed(
        &self,
        id: &str,
        lock: &LockName,
        token: FencingToken,
    ) -> Result<(), WriteError> {
        in_time(async {
            let mut tx = self.0.begin().await?;
            // First: from here to the commit no other holder passes.
            FENCE.check(&mut tx, lock, token).await?;
            let mark = "INSERT INTO orders (id, quantity, token) VALUES ($1, $2, $3) \
                 ON CONFLICT (id) DO UPDATE SET token = excluded.token";
            let mark = sqlx::query(mark).bind(id).bind(Order::QUANTITY).bind(token);
            mark.persistent(false).execute(&mut *tx).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    /// Runs a statement in a transaction of its own, and prepares it without a name: the pool can be behind a
    /// pooler that gives the connection to another client between two transactions, or between the two messages
    /// in which the driver sends a statement.
    async fn run<T>(
        &self,
        statement: QueryAs<'_, Postgres, T, PgArguments>,
    ) -> sqlx::Result<Option<T>>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        // On the heap: the driver's futures are large, and all futures around them would be.
        Box::pin(async {
            let mut tx = self.0.begin().await?;
            let row = statement.persistent(false).fetch_optional(&mut *tx);
            let row = row.await?;
            tx.commit().await?;
            Ok(row)
        })
        .await
    }
}

/// Makes the tables. Instances start at the same time, and two `CREATE TABLE IF NOT EXISTS` together
/// can fail: one instance after the other. This is work inside one database, so a lock of its
/// transaction does, wherever the locks of the service are.
async fn migrate(pool: &PgPool) -> anyhow::Result<()> {
    let mut tx = pool.begin().await?;
    let alone = "SELECT pg_advisory_xact_lock(hashtext('orders: tables'))";
    sqlx::raw_sql(alone).execute(&mut *tx).await?;
    Fence::migrate(&mut *tx).await?;
    let orders = "CREATE TABLE IF NOT EXISTS orders \
         (id text PRIMARY KEY, quantity integer NOT NULL, token bigint)";
    sqlx::raw_sql(orders).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

async fn in_time<T, E: From<StoreError>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    timeout(ANSWER, work)
        .await
        .unwrap_or_else(|_| Err(StoreError::Silent.into()))
}
