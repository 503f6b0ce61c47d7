//! Which locks the table has, over a connection for that one question.
//!
//! What it says of times is by one time of the server, when it had the statement. It waits for no more than a moment
//! where the table is locked.
//!
//! The server goes on with a statement whose caller has left. So the statement is that of a task, and the next list begins
//! when it has ended: callers who leave and ask again do not have the table read several times at the same time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lock_grammar::{MAX_NAME, MAX_PERMITS};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, Row};
use tokio::time::timeout;

use super::session::holder;
use super::setup::Table;
use super::shared::{Opened, Shared};
use super::sql::{NO_OWNER, READERS, held_for_at, left_at, plain, shares_at};
use crate::instance::LONGEST;
use crate::postgres::sqlstate::sqlstate;
use crate::{ListedLock, LockError, LockMode, LockName};

/// When the server had the message.
const NOW: &str = "statement_timestamp()";

/// After which time a list that has no answer is no longer under way: the server has cancelled it by then.
const OVER: Duration = Duration::from_secs(35);

/// Up to one more than `limit`, if there are so many.
pub(super) async fn list(opened: &Opened, limit: usize) -> Result<Vec<ListedLock>, LockError> {
    let turn = Arc::clone(&opened.listing).lock_owned().await;
    let (shared, table) = (Arc::clone(&opened.shared), opened.table.clone());
    let listed = tokio::spawn(async move {
        let listed = timeout(OVER, look(&shared, &table, limit)).await;
        drop(turn);
        listed.unwrap_or_else(|_| Err(LockError::unanswered()))
    });
    let ended = |_| Err(LockError::unavailable("the runtime of the caller ended"));
    listed.await.unwrap_or_else(ended)
}

/// Not over the connections of the locks, which belong to their runtime: a look at a large table must not
/// hold up a renewal.
async fn look(shared: &Shared, table: &Table, limit: usize) -> Result<Vec<ListedLock>, LockError> {
    let mut connection = shared.connections.open().await?;
    let sent = sqlx::raw_sql(AssertSqlSafe(listing(table, limit.saturating_add(1))));
    // The answer counts from when the server had the statement, which can wait for the table after that.
    let now = SystemTime::now();
    let rows = sent.fetch_all(&mut connection).await;
    let listed = rows.and_then(|rows| rows.iter().map(|row| listed(row, now)).collect());
    // The answer is here: a server that does not say goodbye takes nothing from it.
    let _ = connection.close_hard().await;
    listed.map_err(|error| {
        let said = match sqlstate(&error).as_deref() {
            Some("55P03") => {
                "another session has locked the lease table, or rewrites it: it cannot be listed until that ends"
            }
            _ => "the PostgreSQL server did not list the lease table",
        };
        LockError::unavailable(said).with_source(error)
    })
}

/// One message, as all that goes through a pooler. Each reader of a lock has a row of its own. Marks and the row of the
/// server have no owner.
fn listing(table: &Table, limit: usize) -> String {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    format!(
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY; \
         SET LOCAL search_path = pg_catalog, pg_temp; \
         SET LOCAL lock_timeout = 500; SET LOCAL statement_timeout = '30s'; \
         SELECT l.key::text, {name}, {instance}, \
          {held_for}, \
          CASE WHEN l.owner = {NO_OWNER} THEN {left} END, l.awaited, l.owner = {READERS} \
         FROM {table} AS l LEFT JOIN LATERAL {shares} AS r ON true WHERE l.owner IS NOT NULL AND l.expires > {NOW} LIMIT {limit}",
        table = table.name(),
        held_for = held_for_at(NOW),
        left = left_at(NOW, "l.expires"),
        shares = shares_at(NOW),
        // With the slot of a permit.
        name = plain("l.name", MAX_NAME + "#256".len()),
        instance = plain("coalesce(r.who, l.holder)", LONGEST),
    )
}

fn listed(row: &PgRow, now: SystemTime) -> Result<ListedLock, sqlx::Error> {
    let mode = match row.try_get(6)? {
        true => LockMode::Shared,
        false => LockMode::Exclusive,
    };
    let holder = holder(mode, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, now);
    let mut lock = ListedLock::new(row.try_get::<&str, _>(0)?, holder);
    if let Some(name) = named(row.try_get(1)?) {
        lock = lock.with_name(name);
    }
    // Only those that listen note it: without a note others may poll.
    if row.try_get(5)? {
        lock = lock.with_awaited(true);
    }
    Ok(lock)
}

/// The name of a lock or of a slot, if it is one.
fn named(text: &str) -> Option<LockName> {
    if let Ok(name) = text.parse() {
        return Some(name);
    }
    let (name, slot) = text.rsplit_once('#')?;
    let slot = slot.parse().ok();
    let slot = slot.filter(|slot| (1..=MAX_PERMITS).contains(slot))?;
    let name: LockName = name.parse().ok()?;
    Some(name.slot(slot)).filter(|name| name.as_str() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_slots_are_read_and_other_text_is_not() {
        for text in ["order:process:42", "job:nightly", "export:run:7#3"] {
            assert_eq!(named(text).unwrap().as_str(), text);
        }
        for text in [
            "",
            "mark",
            "export:run:7#0",
            "export:run:7#03",
            "export:run:7#257",
            "#1",
            "a\nb:c",
        ] {
            assert_eq!(named(text), None, "{text:?}");
        }
    }
}
