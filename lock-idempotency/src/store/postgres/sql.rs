//! The table, and the statements over it.
//!
//! Each is one text for the simple protocol, with literals that are ours: hexadecimal digits and integers.
//! A prepared statement would be parsed and executed in two exchanges, between which a transaction pooler may
//! serve another client. The one that stores has a parameter all the same, and runs in a transaction: the driver
//! logs the text of statements, and a text with the record would have what clients were answered. Names of
//! PostgreSQL's own are qualified: the caller's path can lead to a neighbour's first.

use std::time::Duration;

use lock_core::{FencingToken, LockError};

use crate::RecordKey;

const TABLE: &str = "distributed_lock_idempotency";

/// How many rows are deleted by one statement.
pub(super) const BATCH: u64 = 1_000;

/// A lifetime that is longer is as long as this: a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The clock of the server, and not the start of a transaction that may be old.
const NOW: &str = "pg_catalog.clock_timestamp()";

/// `token` is that of the lock, where a handler stored in its own transaction.
pub(super) const MIGRATION: &str = "\
CREATE TABLE IF NOT EXISTS distributed_lock_idempotency (
    id bytea PRIMARY KEY,
    record bytea NOT NULL,
    token bigint NOT NULL DEFAULT 0,
    stored_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    expires_at pg_catalog.timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS distributed_lock_idempotency_ends ON distributed_lock_idempotency (expires_at)";

/// One migration at a time: two `CREATE TABLE IF NOT EXISTS` together fail. A pair of numbers never
/// meets the key of a lock; these are arbitrary, and the same in every version.
const ALONE: &str = "SELECT pg_catalog.pg_advisory_xact_lock(1684827491, 2)";

/// No holder of the lock has come later. A record that has ended a minute ago says nothing of that any more: it is
/// deleted about then, and the locks may have moved to a backend whose tokens are lower.
const IS_NEWER: &str = "\
    AND (old.token OPERATOR(pg_catalog.<=) excluded.token \
      OR old.expires_at OPERATOR(pg_catalog.<=) \
        (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '1 minute'::pg_catalog.interval))";

/// The transaction of a statement that writes. In a stricter one, which a role can have by default, a cleaning
/// beside it would make it fail.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// The table, by its name as SQL has it.
pub(super) struct Table(String);

impl Table {
    pub(super) fn new(schema: Option<&str>) -> Result<Self, LockError> {
        let Some(schema) = schema else {
            return Ok(Self(TABLE.to_owned()));
        };
        // PostgreSQL cuts longer names off.
        if !(1..=63).contains(&schema.len()) || schema.contains('\0') {
            return Err(LockError::misconfigured(
                "the schema of a store of idempotency keys is a name of 1 to 63 bytes",
            ));
        }
        Ok(Self::in_schema(schema))
    }

    /// The one in this schema, whose name is not quoted.
    pub(super) fn in_schema(schema: &str) -> Self {
        Self(format!("\"{}\".{TABLE}", schema.replace('"', "\"\"")))
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// As SQL has it, where one was given.
    pub(super) fn schema(&self) -> Option<&str> {
        self.0.strip_suffix(TABLE)?.strip_suffix('.')
    }

    pub(super) fn migration(&self) -> String {
        // The name of the index takes no schema: it is where its table is.
        let table = format!("EXISTS {TABLE} (");
        let indexed = format!("ON {TABLE} (");
        MIGRATION
            .replace(&table, &format!("EXISTS {} (", self.0))
            .replace(&indexed, &format!("ON {} (", self.0))
    }

    /// Gives one row: the schema that this session finds the table in, if there is one.
    pub(super) fn look_for(&self) -> String {
        let name = self.0.replace('\'', "''");
        format!(
            "SELECT (SELECT n.nspname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n \
               ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
               WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('{name}')::pg_catalog.oid)"
        )
    }

    /// One text is one transaction.
    pub(super) fn create(&self) -> String {
        format!("{ALONE}; {}", self.migration())
    }

    /// Gives one row: the record in hexadecimal digits, which every `bytea_output` leaves alone, if there is one,
    /// and whether nothing can be stored here.
    pub(super) fn get(&self, key: &RecordKey) -> String {
        let (table, key) = (&self.0, id(key));
        format!(
            "SELECT (SELECT pg_catalog.encode(record, 'hex') FROM {table} \
               WHERE id OPERATOR(pg_catalog.=) {key} AND expires_at OPERATOR(pg_catalog.>) {NOW}), \
             pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on'"
        )
    }

    /// Gives a row when the record, its parameter, was stored. One that has ended makes room; with a token, only
    /// where no later holder of the lock has been in the last minute.
    pub(super) fn put(
        &self,
        key: &RecordKey,
        lifetime: Duration,
        token: Option<FencingToken>,
    ) -> String {
        let (key, millis) = (id(key), lifetime.min(LONGEST).as_millis());
        let number = token.map_or(0, FencingToken::get);
        let is_newer = token.map_or("", |_| IS_NEWER);
        let until = format!(
            "{NOW} OPERATOR(pg_catalog.+) \
             ({millis} OPERATOR(pg_catalog.*) '1 millisecond'::pg_catalog.interval)"
        );
        self.insert(&format!("VALUES ({key}, $1, {number}, {until})"), is_newer)
    }

    fn insert(&self, rows: &str, is_newer: &str) -> String {
        let table = &self.0;
        format!(
            "INSERT INTO {table} AS old (id, record, token, expires_at) {rows} \
             ON CONFLICT (id) DO UPDATE SET record = excluded.record, token = excluded.token, \
               stored_at = excluded.stored_at, expires_at = excluded.expires_at \
             WHERE old.expires_at OPERATOR(pg_catalog.<=) {NOW} {is_newer} \
             RETURNING 1"
        )
    }

    /// Stores and deletes nothing, and fails where the table, the rights of the role or the server would let
    /// nothing be stored or deleted.
    pub(super) fn rehearse(&self) -> String {
        let none =
            format!("SELECT ''::pg_catalog.bytea, ''::pg_catalog.bytea, 0, {NOW} WHERE false");
        let insert = self.insert(&none, IS_NEWER);
        format!("{insert}; DELETE FROM {} WHERE false", self.0)
    }

    pub(super) fn clean_up(&self) -> String {
        let table = &self.0;
        format!(
            "DELETE FROM {table} WHERE id OPERATOR(pg_catalog.=) ANY (ARRAY(\
               SELECT id FROM {table} WHERE expires_at OPERATOR(pg_catalog.<=) {NOW} \
               ORDER BY expires_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED))"
        )
    }
}

/// Right whatever `standard_conforming_strings` is.
fn id(key: &RecordKey) -> String {
    format!("pg_catalog.decode('{key}', 'hex')")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migration_of_a_schema_names_it_where_sql_wants_it() {
        let table = Table::new(Some("bil\"ling")).expect("a schema");
        let migration = table.migration();
        let name = format!("\"bil\"\"ling\".{TABLE} (");
        assert_eq!(migration.matches(&name).count(), 2, "{migration}");
        assert!(migration.contains(&format!("NOT EXISTS {TABLE}_ends ON")));
        let plain = Table::new(None).expect("no schema");
        assert_eq!(plain.migration(), MIGRATION);
        assert_eq!(
            (table.schema(), plain.schema()),
            (Some("\"bil\"\"ling\""), None)
        );
        assert!(Table::new(Some("")).is_err());
    }
}
