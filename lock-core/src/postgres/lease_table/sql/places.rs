//! The places of writers that wait: before readers that come later.
//!
//! A row has one place. A writer that readers refuse takes it for a lease, and again with each try, also from another
//! writer: readers are kept out by either. It ends with the grant or the wait of the writer whose it is, and of no other.
//! A writer whose place another has taken, and whose process sees at its next look, a second later at most, that the other
//! has none any more, takes it again; so long readers can come before it.
//!
//! The rows were locked by [`gather`](Of::gather): readers that come and go do not make a writer miss its place.

use super::{MICROS, Of, is_read, kind};
use crate::postgres::lease_table::names::CHANNEL;

/// Locks by their places in what is asked.
fn asked([keys, places]: [&str; 2]) -> String {
    format!("SELECT * FROM unnest({keys}::uuid[], {places}::int4[]) AS a(key, place)")
}

impl Of<'_> {
    /// Takes the places of locks that readers hold.
    pub(in crate::postgres::lease_table) fn want(
        &self,
        [keys, places, process, lasts, not_after]: [&str; 5],
    ) -> String {
        let (table, asked, is_read) = (self.table, asked([keys, places]), is_read());
        format!(
            "; WITH asked AS ({asked}), \
             wanted AS (UPDATE {table} AS l SET wanted_by = {process}::uuid, \
              wanted_until = clock_timestamp() + {lasts}::int4 * interval '1 ms' \
              WHERE l.key = ANY ({keys}::uuid[]) AND {is_read} AND {MICROS} <= {not_after}::int8 RETURNING l.key) \
             SELECT {kind}, a.place, NULL::int8, NULL::int8 FROM asked AS a JOIN wanted ON wanted.key = a.key",
            kind = kind::WANTED,
        )
    }

    /// Gives back the places that are of this process, and wakes the readers that were kept out, unless they are
    /// `deaf`. No lock is free for that: it is not left to others for a moment, as one that was released is.
    pub(in crate::postgres::lease_table) fn give_up(
        &self,
        [keys, places, process, deaf]: [&str; 4],
    ) -> String {
        let (table, asked) = (self.table, asked([keys, places]));
        format!(
            "; WITH asked AS ({asked}), \
             given AS (UPDATE {table} AS l SET wanted_by = NULL, wanted_until = NULL \
              WHERE l.key = ANY ({keys}::uuid[]) AND l.wanted_by = {process}::uuid RETURNING l.key, l.awaited) \
             SELECT {kind}, a.place, (CASE WHEN given.key IS NULL THEN 0 WHEN given.awaited AND NOT {deaf}::bool \
               THEN (pg_notify('{CHANNEL}', given.key::text) IS NOT NULL)::int4 ELSE 1 END)::int8, NULL::int8 \
             FROM asked AS a LEFT JOIN given ON given.key = a.key",
            kind = kind::RELEASED,
        )
    }
}
