//! What to do about work that was too late.
//!
//! A lock keeps a second worker from *beginning*. It cannot keep the first one from *finishing*: a
//! process that was frozen for longer than its lease, a request that was stuck in a network, a write
//! that a proxy repeats. When it goes on, another has had the lock. The guard says so, and stops the
//! work at its next `.await`; what was sent by then arrives.
//!
//! So let the storage refuse it. Every guard can issue a *fencing token*, a number that is greater
//! than that of any earlier holder of the same name, also across crashes and promotions of the
//! server. Whoever writes sends it along, and the storage keeps the greatest that it has seen:
//!
//! ```sql
//! UPDATE orders SET status = 'processed', fence = $2 WHERE id = $1 AND fence <= $2
//! ```
//!
//! No row is updated when a later holder has written: treat that as a lost lock. Where there is no row
//! of your own for it, `postgres::Fence` keeps a table of one row for each name:
//!
#![cfg_attr(
    feature = "postgres",
    doc = r##"
```no_run
use lock_core::{LockGuard, postgres::Fence};
use sqlx::PgPool;

async fn write(pool: &PgPool, guard: &LockGuard) -> Result<(), Box<dyn std::error::Error>> {
    let token = guard.fencing_token().await?;
    let mut tx = pool.begin().await?;
    // Refuses us if a later holder was here, and keeps it out until we commit.
    Fence::new().check(&mut tx, guard.name(), token).await?;
    sqlx::query("UPDATE invoices SET sent = true").execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}
```"##
)]
//!
//! - **Ask for the token after the lock was acquired**, once; a guard answers the same each time.
//! - **Compare with `<=` and not `<`**: one holder can write more than once.
//! - **Services that cannot compare** (a payment provider, a mail server) take an idempotency key
//!   instead: make it of what is done (`refund-7`), not of the token, since the next holder is to
//!   repeat the *same* request.
//! - **What was spawned goes on.** Loss drops the protected future, and not the tasks that it has
//!   spawned, the threads that it blocks, or statements that a server runs for it.
//!
//! # Tokens and migrations
//!
//! A token of PostgreSQL counts transactions of that server, one of Redis is the server's time in
//! microseconds. When the locks move to another server or engine, tokens can go back, and storage that
//! compares them refuses everybody. Before such a move, raise `token_epoch` of the PostgreSQL backend,
//! which are the highest bits; or reset what the storage has seen while nobody runs.
