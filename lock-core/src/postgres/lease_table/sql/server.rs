//! What is done with the row of the server, and with rows that no client needs.

use std::time::Duration;

use super::{BEGIN, MICROS, Of, kind, milliseconds};
use crate::postgres::lease_table::key::RowKey;

/// By how much the clocks of two servers differ at most, in microseconds: 10 minutes.
const AHEAD: i64 = 600_000_000;

/// How many grants a server that takes over may lack of one lock: 5 seconds of as many as one server makes.
const LACKED: i64 = 100_000;

/// How long a row that no client holds stays, which is longer than any statement is under way.
const KEPT: &str = "interval '1 hour'";

/// How many rows one sweep removes at most.
pub(in crate::postgres::lease_table) const SWEPT: i64 = 1_000;

impl Of<'_> {
    /// Notes that this is another server than the table was on, or that its clock has jumped: no lock is granted
    /// until all that were granted before have ended. `lease` is that of the client; the row knows a longer
    /// one, or learns of this: a server that was restored can have forgotten it. Nothing is noted twice for one server,
    /// and what was noted ends though the clock goes back.
    ///
    /// Tokens go on where those of another server can have come to, although its clock may have been ahead and
    /// the last grants may be lacking here.
    pub(in crate::postgres::lease_table) fn quarantine(
        &self,
        lease: Duration,
        has_jumped: bool,
    ) -> String {
        let (table, identity, server) = (self.table, self.identity.sql(), RowKey::SERVER);
        let milliseconds = milliseconds(lease);
        let whole = format!("greatest({milliseconds}, server.lease) * interval '1 ms'");
        format!(
            "UPDATE {table} AS server SET holder = {identity}, lease = greatest({milliseconds}, server.lease), \
              expires = clock_timestamp() + {whole}, \
              token = CASE server.holder WHEN {identity} THEN server.token ELSE greatest({MICROS} + {AHEAD}, \
               (SELECT max(l.token) FROM {table} AS l) + {LACKED}) END \
             WHERE server.key = '{server}'::uuid AND (server.holder <> {identity} OR {has_jumped} \
              OR server.expires > clock_timestamp() + {whole} + interval '1 s')"
        )
    }

    /// Notes which server this is, if the table is new and no client has, and the lease of a client, if it is
    /// the longest: as long is waited where locks may be forgotten. Gives the server that is noted.
    pub(in crate::postgres::lease_table) fn introduce(&self, lease: Duration) -> String {
        let (table, identity, server) = (self.table, self.identity.sql(), RowKey::SERVER);
        let lease = milliseconds(lease);
        format!(
            "{BEGIN}UPDATE {table} AS server SET lease = greatest(server.lease, {lease}), \
              holder = CASE server.holder WHEN '' THEN {identity} ELSE server.holder END \
             WHERE server.key = '{server}'::uuid AND (server.holder = '' OR server.lease < {lease}); \
             SELECT server.holder FROM {table} AS server WHERE server.key = '{server}'::uuid"
        )
    }

    /// Removes rows that have been free for long, and gives their number. What tokens they had the row of the server
    /// has then, from where those of a new row go on.
    pub(in crate::postgres::lease_table) fn sweep(&self) -> String {
        let (table, server) = (self.table, RowKey::SERVER);
        format!(
            "; WITH old AS MATERIALIZED (SELECT l.key FROM {table} AS l WHERE l.key <> '{server}'::uuid \
              AND l.expires < clock_timestamp() - {KEPT} LIMIT {SWEPT} FOR UPDATE OF l SKIP LOCKED), \
             gone AS (DELETE FROM {table} AS l USING old WHERE l.key = old.key \
              AND l.expires < clock_timestamp() - {KEPT} RETURNING l.token), \
             kept AS (UPDATE {table} SET token = greatest(token, (SELECT max(gone.token) FROM gone)) \
              WHERE key = '{server}'::uuid AND EXISTS (SELECT FROM gone)) \
             SELECT {kind}, 0, count(*), NULL::int8 FROM gone",
            kind = kind::SWEPT,
        )
    }
}
