//! Orders in PostgreSQL.

use lock_core::{FencingToken, LockName};
use sqlx::PgPool;

use super::{Order, StoreError, WriteError};
use crate::database::{FENCE, in_time};

/// The orders in the database.
#[derive(Clone, Debug)]
pub(crate) struct PostgresOrders(PgPool);

impl PostgresOrders {
    pub(super) fn new(pool: PgPool) -> Self {
        Self(pool)
    }

    pub(crate) async fn find(&self, id: &str) -> Result<Option<Order>, StoreError> {
        let find = "SELECT quantity, token, xmin::text FROM orders WHERE id = $1";
        let find = sqlx::query_as(find).bind(id).fetch_optional(&self.0);
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
        let row = in_time(async { Ok::<_, WriteError>(save.fetch_optional(&self.0).await?) });
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
            mark.execute(&mut *tx).await?;
            Ok(tx.commit().await?)
        })
        .await
    }
}
