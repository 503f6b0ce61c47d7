//! The rows that a request with readers waits for, before all that it does with them.

use super::{MICROS, Of, kind};

impl Of<'_> {
    /// Locks the rows of these keys, in their order, and then makes those rows that are missing, in order as well.
    ///
    /// Readers meet on one row, and a try of one must not be refused because the statement of another has it: so they
    /// wait for it, in a queue that the server keeps. Nor does a writer that waits miss its place because readers come
    /// and go. The lock is none that a [fence](crate::postgres::lease_table::fence()) is in the way of; others are held
    /// until the end of a request, which waits for no client.
    ///
    /// # Why no two requests wait for each other
    ///
    /// A request waits for rows here, in order, while it has made none; then for others that make the same rows, in
    /// order; and for nothing after that: it has the rows of its releases and renewals then, takes no other that is
    /// locked, and finds nothing to make. A request without readers waits in the same two steps, for its releases and
    /// for the rows that its acquires make.
    ///
    /// A row that another transaction made meanwhile is not locked, and the next statement may find that another request has
    /// it: the answer names its readers as [met](kind::MET), and they are sent again, which finds the row. So does the answer
    /// where a row was swept that this statement has waited for.
    pub(in crate::postgres::lease_table) fn gather(
        &self,
        [rows, keys, names, places, namespace, holder, not_after]: [&str; 7],
    ) -> String {
        let (table, may_grant) = (self.table, self.may_grant(not_after));
        format!(
            "WITH locked AS MATERIALIZED (SELECT l.key FROM {table} AS l WHERE l.key = ANY ({rows}::uuid[]) \
              ORDER BY l.key FOR NO KEY UPDATE OF l), \
             asked AS (SELECT * FROM unnest({keys}::uuid[], {names}::text[], {places}::int4[]) AS a(key, name, place)), \
             missing AS MATERIALIZED (SELECT a.key, min(a.name) AS name FROM asked AS a CROSS JOIN {table} AS server \
              WHERE {may_grant} \
              AND NOT EXISTS (SELECT FROM {table} AS l WHERE l.key = a.key) GROUP BY a.key), \
             made AS (INSERT INTO {table} AS l (key, namespace, name, holder, lease, expires, acquired, token) \
              SELECT m.key, {namespace}::text, m.name, {holder}::text, 0, clock_timestamp(), clock_timestamp(), 0 \
              FROM missing AS m CROSS JOIN (SELECT count(*) FROM locked) AS first ORDER BY m.key \
              ON CONFLICT (key) DO NOTHING RETURNING l.key) \
             SELECT {gathered}, 0, count(*), {MICROS} FROM locked \
             UNION ALL SELECT {met}, a.place, NULL, NULL FROM asked AS a JOIN missing AS m ON m.key = a.key \
              WHERE NOT EXISTS (SELECT FROM made WHERE made.key = a.key)",
            gathered = kind::GATHERED,
            met = kind::MET,
        )
    }
}
