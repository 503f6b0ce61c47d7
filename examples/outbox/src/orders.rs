//! What there are messages about.

use sqlx::PgPool;

use crate::outbox;

/// Places more orders of a customer, each with its message, in transactions of their own.
pub(crate) async fn place(pool: &PgPool, customer: &str, count: i64) -> sqlx::Result<()> {
    let last = "SELECT coalesce(max(number), 0) FROM outbox_orders WHERE customer = $1";
    let last: i64 = sqlx::query_scalar(last)
        .bind(customer)
        .fetch_one(pool)
        .await?;
    for number in last + 1..=last + count {
        let mut tx = pool.begin().await?;
        sqlx::query("INSERT INTO outbox_orders (customer, number) VALUES ($1, $2)")
            .bind(customer)
            .bind(number)
            .execute(&mut *tx)
            .await?;
        outbox::add(&mut tx, &format!("{customer} has placed order {number}")).await?;
        // Both, or neither.
        tx.commit().await?;
    }
    Ok(())
}
