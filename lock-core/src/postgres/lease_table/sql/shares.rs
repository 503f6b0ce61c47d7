//! What is done with the rows of locks that readers hold together.
//!
//! A row that readers hold is of [`READERS`], and has arrays side by side: whose each share is, until when it lasts, since
//! when, and what its holder is called. The row expires when the last of them ends, which is why a writer looks at that
//! alone. Each statement drops the shares that have ended from what it writes.
//!
//! # Why no reader holds a lock beside a writer
//!
//! A writer takes a row of which it has found, under its lock, that it has no owner or has expired; a reader takes a share
//! of one of which it has found the same, or that it is of readers. Both write the owner and when the row expires, and an
//! UPDATE under READ COMMITTED looks at the newest version of a row again. A share lasts no longer than its row:
//! it is written with a row that expires as late, is renewed together with its row, only while neither has ended, and
//! what shortens a row is the release of its last share. So there is no share when a writer finds a row that has
//! expired, and none can come back: it is renewed only in a row of readers that lists it, and the first reader after a
//! writer begins new arrays.
//!
//! The first reader after a writer raises the token, to one that no writer has: a fence of a writer that was too late,
//! whichever version it is of, would take the row of the readers for its own. Writers go on from there.
//!
//! The rows were locked by [`gather`](Of::gather). A row that a transaction of a user is fenced by is passed over, as
//! a writer passes it over.

use super::{IS_TOO_LATE, MICROS, NO_OWNER, Of, READERS, is_read, kind, notified};

/// The shares of a row `l` that is of readers, in order, as far as they last.
const SHARES: &str = "unnest(l.readers, l.readers_until, l.readers_since, l.readers_by) AS r(owner, until, since, who)";

/// What is written into a row of these shares, and when the row expires: now, if the last has just ended.
const WRITTEN: &str = "array_agg(s.owner), array_agg(s.until), array_agg(s.since), array_agg(s.who), \
     coalesce(max(s.until), clock_timestamp())";

/// Shares that are asked for, by their places.
fn asked([keys, owners, places]: [&str; 3]) -> String {
    format!(
        "SELECT * FROM unnest({keys}::uuid[], {owners}::uuid[], {places}::int4[]) AS a(key, owner, place)"
    )
}

/// When a share ends that is granted or renewed now.
fn ends(lasts: &str) -> String {
    format!("clock_timestamp() + {lasts}::int4 * interval '1 ms'")
}

impl Of<'_> {
    /// Grants shares of locks that no writer holds and none waits for.
    ///
    /// The end of those at the places `awaited` is notified, if they are refused here.
    pub(in crate::postgres::lease_table) fn share(
        &self,
        [keys, owners, places, holder, lasts, not_after, awaited]: [&str; 7],
    ) -> String {
        let (table, may_grant) = (self.table, self.may_grant(not_after));
        let (asked, ends, is_read) = (asked([keys, owners, places]), ends(lasts), is_read());
        let is_open = format!(
            "((l.owner IS NULL OR l.expires <= clock_timestamp() OR l.owner = {READERS}) AND NOT {})",
            self.is_wanted()
        );
        format!(
            "WITH asked AS ({asked}), \
             server AS MATERIALIZED (SELECT server.lease FROM {table} AS server \
              WHERE {may_grant}), \
             open AS MATERIALIZED (SELECT l.key FROM {table} AS l CROSS JOIN server \
              WHERE l.key = ANY ({keys}::uuid[]) AND {is_open} FOR UPDATE OF l SKIP LOCKED), \
             shared AS (UPDATE {table} AS l SET owner = {READERS}, holder = {holder}::text, \
              lease = greatest({lasts}::int4, CASE WHEN {is_read} THEN l.lease END), \
              acquired = CASE WHEN {is_read} THEN l.acquired ELSE clock_timestamp() END, \
              token = CASE WHEN l.owner = {READERS} THEN l.token ELSE l.token + 1 END, \
              (readers, readers_until, readers_since, readers_by, expires) = (SELECT {WRITTEN} FROM ( \
               SELECT r.* FROM {SHARES} WHERE l.owner = {READERS} AND r.until > clock_timestamp() \
               UNION ALL SELECT a.owner, {ends}, clock_timestamp(), {holder}::text FROM asked AS a WHERE a.key = l.key \
              ) AS s(owner, until, since, who)) \
              FROM open WHERE l.key = open.key AND {is_open} RETURNING l.key), \
             refused AS MATERIALIZED (SELECT l.key FROM asked AS a JOIN {table} AS l ON l.key = a.key CROSS JOIN server \
              WHERE a.place = ANY ({awaited}::int4[]) AND NOT {is_open} AND NOT l.awaited \
              FOR NO KEY UPDATE OF l SKIP LOCKED), \
             noted AS (UPDATE {table} AS l SET awaited = true FROM refused WHERE l.key = refused.key) \
             SELECT CASE WHEN l.key IS NULL AND EXISTS (SELECT FROM server) THEN {met} ELSE {kind} END, a.place, \
              CASE WHEN shared.key IS NOT NULL THEN 0 END::int8, \
              CASE WHEN {IS_TOO_LATE} AND l.owner IS NOT NULL THEN -1 ELSE {left} END \
             FROM asked AS a LEFT JOIN shared ON shared.key = a.key LEFT JOIN {table} AS l ON l.key = a.key",
            met = kind::MET,
            kind = kind::ACQUIRED,
            left = self.left_for_readers(),
        )
    }

    /// Renews shares: what has ended is not revived, nor what is not there.
    pub(in crate::postgres::lease_table) fn renew_shares(
        &self,
        [keys, owners, places, lasts, not_after]: [&str; 5],
    ) -> String {
        let (table, asked) = (self.table, asked([keys, owners, places]));
        let (ends, is_read) = (ends(lasts), is_read());
        format!(
            "WITH asked AS ({asked}), \
             renewed AS (UPDATE {table} AS l SET lease = greatest(l.lease, {lasts}::int4), \
              (readers, readers_until, readers_since, readers_by, expires) = (SELECT {WRITTEN} FROM ( \
               SELECT r.owner, CASE WHEN r.owner = ANY ({owners}::uuid[]) THEN {ends} ELSE r.until END, r.since, r.who \
               FROM {SHARES} WHERE r.until > clock_timestamp()) AS s(owner, until, since, who)) \
              WHERE l.key = ANY ({keys}::uuid[]) AND {is_read} AND l.readers && {owners}::uuid[] \
              AND {MICROS} <= {not_after}::int8 RETURNING l.key, l.readers) \
             SELECT {kind}, a.place, NULL::int8, NULL::int8 \
             FROM renewed CROSS JOIN LATERAL unnest(renewed.readers) AS r(owner) \
             JOIN asked AS a ON a.key = renewed.key AND a.owner = r.owner",
            kind = kind::RENEWED,
        )
    }

    /// Releases shares, and the lock with the last of them. Processes that wait for that are notified, unless they are
    /// `deaf`.
    pub(in crate::postgres::lease_table) fn leave(
        &self,
        [keys, owners, places, deaf]: [&str; 4],
    ) -> String {
        let (table, asked) = (self.table, asked([keys, owners, places]));
        let notified = notified(deaf);
        format!(
            "WITH asked AS ({asked}), \
             own AS MATERIALIZED (SELECT l.key, l.awaited FROM {table} AS l \
              WHERE l.key = ANY ({keys}::uuid[]) AND l.owner = {READERS} AND l.readers && {owners}::uuid[]), \
             held AS MATERIALIZED (SELECT r.owner FROM own JOIN {table} AS l ON l.key = own.key CROSS JOIN LATERAL {SHARES} \
              WHERE r.until > clock_timestamp()), \
             freed AS (UPDATE {table} AS l SET \
              (readers, readers_until, readers_since, readers_by, expires, owner, awaited) = (SELECT {WRITTEN}, \
               CASE WHEN count(*) > 0 THEN {READERS} END, l.awaited AND count(*) > 0 \
               FROM (SELECT r.* FROM {SHARES} WHERE r.until > clock_timestamp() AND r.owner <> ALL ({owners}::uuid[])) AS s) \
              FROM own WHERE l.key = own.key RETURNING l.key, l.owner IS NULL AND own.awaited AS awaited) \
             SELECT {kind}, a.place, (CASE WHEN held.owner IS NOT NULL THEN 1 \
               WHEN l.owner NOT IN ({READERS}, {NO_OWNER}) AND l.expires > clock_timestamp() THEN 2 ELSE 0 END)::int8, \
              {notified} \
             FROM asked AS a LEFT JOIN held ON held.owner = a.owner LEFT JOIN freed ON freed.key = a.key \
             LEFT JOIN {table} AS l ON l.key = a.key",
            kind = kind::RELEASED,
        )
    }
}
