//! Which locks the table has, over a connection for that one question.

use lock_grammar::{MAX_NAME, MAX_PERMITS};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, Row};

use super::session::holder;
use super::setup::Table;
use super::shared::Opened;
use super::sql::{HELD_FOR, NO_OWNER, READERS, left, shares};
use crate::instance::LONGEST;
use crate::{ListedLock, LockError, LockMode, LockName};

/// Up to one more than `limit`, if there are so many.
///
/// Not over the connections of the locks, which belong to their runtime: a look at a large table must not
/// hold up a renewal.
pub(super) async fn list(opened: &Opened, limit: usize) -> Result<Vec<ListedLock>, LockError> {
    let mut connection = opened.shared.connections.open().await?;
    let sent = sqlx::raw_sql(AssertSqlSafe(listing(
        &opened.table,
        limit.saturating_add(1),
    )));
    let rows = sent.fetch_all(&mut connection).await;
    let listed = rows.and_then(|rows| rows.iter().map(listed).collect());
    // The answer is here: a server that does not say goodbye takes nothing from it.
    let _ = connection.close_hard().await;
    listed.map_err(|error| {
        LockError::unavailable("the PostgreSQL server did not list the lease table")
            .with_source(error)
    })
}

/// One message, as all that goes through a pooler. Each reader of a lock has a row of its own. Marks and the row of the
/// server have no owner. Any role with rights on the table can have written any text: no more of it is read than a
/// name or an instance can have.
fn listing(table: &Table, limit: usize) -> String {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    format!(
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY; \
         SET LOCAL search_path = pg_catalog, pg_temp; \
         SELECT l.key::text, left(l.name, {name}), left(coalesce(r.who, l.holder), {instance}), \
          {HELD_FOR}, \
          CASE WHEN l.owner = {NO_OWNER} THEN {left} END, l.awaited, l.owner = {READERS} \
         FROM {table} AS l LEFT JOIN LATERAL {shares} AS r ON true WHERE l.owner IS NOT NULL AND l.expires > clock_timestamp() LIMIT {limit}",
        table = table.name(),
        left = left("l.expires"),
        shares = shares(),
        // One more: what is longer is none.
        name = MAX_NAME + 1,
        instance = LONGEST + 1,
    )
}

fn listed(row: &PgRow) -> Result<ListedLock, sqlx::Error> {
    let mode = match row.try_get(6)? {
        true => LockMode::Shared,
        false => LockMode::Exclusive,
    };
    let holder = holder(mode, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
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
