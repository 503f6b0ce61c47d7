//! What is said to other processes: marks of providers, and notifications.

use std::time::Duration;

use super::{Of, kind, milliseconds};
use crate::postgres::lease_table::key::RowKey;
use crate::postgres::lease_table::literal::Text;

impl Of<'_> {
    /// Says that the locks of a namespace are in this table, under a key that this process alone has.
    pub(in crate::postgres::lease_table) fn mark(
        &self,
        key: RowKey,
        namespace: &str,
        holder: &str,
        lease: Duration,
    ) -> String {
        let (table, lease) = (self.table, milliseconds(lease));
        let (namespace, holder) = (Text(namespace), Text(holder));
        format!(
            "; INSERT INTO {table} AS l (key, namespace, name, holder, lease, expires, acquired, token) \
             VALUES ('{key}'::uuid, {namespace}, 'mark', {holder}, {lease}, \
              clock_timestamp() + interval '{lease} ms', clock_timestamp(), 0) \
             ON CONFLICT (key) DO UPDATE SET expires = excluded.expires",
        )
    }

    /// Looks for sessions that hold one of these keys of advisory locks, each `(key, position)`: marks of other
    /// providers. `pg_locks` shows what is held now, by uncommitted transactions as well.
    pub(in crate::postgres::lease_table) fn marks_of_others(rows: &str) -> String {
        format!(
            "; SELECT {kind}, k.position, NULL::int8, NULL::int8 FROM (VALUES {rows}) AS k(key, position) \
             JOIN pg_locks AS l ON ((l.classid::int8 << 32) | l.objid::int8) = k.key \
             WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.mode = 'ShareLock' \
             AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()) LIMIT 1",
            kind = kind::MARKED,
        )
    }

    /// Notifies those who listen to this channel.
    pub(in crate::postgres::lease_table) fn notify(channel: &str) -> String {
        format!(
            "; SELECT {kind}, (pg_notify({channel}, '') IS NOT NULL)::int4, NULL::int8, NULL::int8",
            kind = kind::NOTIFIED,
            channel = Text(channel),
        )
    }

    /// Withdraws a mark.
    pub(in crate::postgres::lease_table) fn unmark(&self, key: RowKey) -> String {
        format!("; DELETE FROM {} WHERE key = '{key}'::uuid", self.table)
    }
}
