//! What there are messages about.

use sqlx::PgPool;

use crate::outbox;

/// Places orders of a customer, each with its message, in transactions of their own.
pub(crate) async fn place(pool: &PgPool, customer: &str, count: i64) -> sqlx::Result<()> {
    for number in 1..=count {
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
