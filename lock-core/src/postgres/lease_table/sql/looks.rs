//! Questions that lock no row. Their locks are arrays of keys; answers name them by their places from 0.

use super::{NO_OWNER, Of, kind, left};
use crate::instance::LONGEST;

fn asked(keys: &str) -> String {
    format!(
        "SELECT key, (place - 1)::int4 AS place FROM unnest({keys}::uuid[]) WITH ORDINALITY AS a(key, place)"
    )
}

impl Of<'_> {
    /// Looks which of these are free, or end within so many milliseconds.
    pub(in crate::postgres::lease_table) fn look(&self, [keys, soon]: [&str; 2]) -> String {
        let (table, asked) = (self.table, asked(keys));
        format!(
            "WITH asked AS ({asked}) \
             SELECT {kind}, a.place, CASE WHEN l.owner IS NOT NULL AND l.expires > clock_timestamp() \
               THEN {left} ELSE 0 END, NULL::int8 \
             FROM asked AS a LEFT JOIN {table} AS l ON l.key = a.key \
             WHERE l.owner IS NULL OR l.expires <= clock_timestamp() + {soon}::int4 * interval '1 ms'",
            kind = kind::FREE,
            left = left("l.expires"),
        )
    }

    /// Looks who holds these. Any role with rights on the table can have written any text: no more of it is read
    /// than an instance can have.
    pub(in crate::postgres::lease_table) fn who_holds(&self, keys: &str) -> String {
        let (table, asked) = (self.table, asked(keys));
        format!(
            "; WITH asked AS ({asked}) \
             SELECT {kind}, a.place, \
              CASE WHEN isfinite(l.acquired) \
              THEN (extract(epoch FROM clock_timestamp() - l.acquired) * 1000000)::int8 END, \
              CASE WHEN l.owner = {NO_OWNER} THEN {left} END, \
              left(l.holder, {read}) \
             FROM asked AS a JOIN {table} AS l ON l.key = a.key \
             WHERE l.owner IS NOT NULL AND l.expires > clock_timestamp()",
            kind = kind::HELD_BY,
            left = left("l.expires"),
            // One more: what is longer is no instance.
            read = LONGEST + 1,
        )
    }
}
