//! The outbox: messages that are written together with what they tell of, and delivered afterwards.

use lock_core::LeaderTerm;
use lock_core::postgres::Fence;
use sqlx::{PgPool, PgTransaction};

use crate::webhook::Webhook;

const FENCE: Fence = Fence::new();

/// So many messages are delivered, and deleted in one transaction, at a time.
const BATCH: i64 = 100;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
    body text NOT NULL
);
CREATE INDEX IF NOT EXISTS outbox_order ON outbox (transaction, id);
CREATE TABLE IF NOT EXISTS outbox_orders (customer text, number bigint, PRIMARY KEY (customer, number))";

/// Ids alone have no order: a transaction can commit after one that drew later ids. Messages are taken
/// once no transaction as old as theirs is open, so that none can appear before them any more.
const NEXT: &str = "
SELECT id, body FROM outbox
WHERE transaction < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY transaction, id LIMIT $1";

/// Makes the tables that are missing.
pub(crate) async fn migrate(pool: &PgPool) -> anyhow::Result<()> {
    sqlx::raw_sql(TABLES).execute(pool).await?;
    Ok(Fence::migrate(pool).await?)
}

/// Adds a message to the transaction that does what it tells of.
pub(crate) async fn add(tx: &mut PgTransaction<'_>, body: &str) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO outbox (body) VALUES ($1)")
        .bind(body)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Delivers the next batch as the leader of this term, and says how many messages that were.
pub(crate) async fn process(
    term: &LeaderTerm,
    pool: &PgPool,
    webhook: &Webhook,
) -> anyhow::Result<usize> {
    let token = term.fencing_token().await?;
    let batch: Vec<(i64, String)> = sqlx::query_as(NEXT).bind(BATCH).fetch_all(pool).await?;
    let (ids, bodies): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    for (id, body) in ids.iter().zip(bodies) {
        webhook.deliver(*id, body, token).await?;
    }
    let mut tx = pool.begin().await?;
    // Refused when this instance was frozen so long that another has delivered meanwhile.
    FENCE.check(&mut tx, term.name(), token).await?;
    sqlx::query("DELETE FROM outbox WHERE id = ANY($1)")
        .bind(&ids)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(ids.len())
}
