//! What is done with the rows of locks that one client holds alone.
//!
//! The locks of a statement are arrays: of keys, of owners, of how many milliseconds each lasts without a renewal, and
//! of their places, by which answers name them.

use super::{IS_TOO_LATE, MICROS, Of, READERS, kind, left, notified};
use crate::postgres::lease_table::key::RowKey;

/// Whom a lock is of that is kept after its release: no acquire has it.
pub(in crate::postgres::lease_table) const NO_OWNER: &str =
    "'00000000-0000-0000-0000-000000000000'::pg_catalog.uuid";

/// When a row expires that is written now.
const EXPIRES: &str = "clock_timestamp() + a.lasts * interval '1 ms'";

/// Locks that are asked for, by their places.
fn asked([keys, owners, lasts, places]: [&str; 4]) -> String {
    format!(
        "SELECT * FROM unnest({keys}::uuid[], {owners}::uuid[], {lasts}::int4[], {places}::int4[]) \
          AS a(key, owner, lasts, place)"
    )
}

impl Of<'_> {
    /// Releases these locks. A row that has expired and was not taken is free after it as well, but was not held.
    /// One that lasts stays closed for as long, without an owner, if it was held.
    ///
    /// Processes that listen are notified of those that they wait for, unless they are `deaf`: also where it stays
    /// closed, so that they learn until when.
    pub(in crate::postgres::lease_table) fn release(
        &self,
        [keys, owners, lasts, places, deaf]: [&str; 5],
    ) -> String {
        let (table, asked) = (self.table, asked([keys, owners, lasts, places]));
        let notified = notified(deaf);
        format!(
            "WITH asked AS ({asked}), \
             own AS (SELECT l.key, a.place, l.expires > clock_timestamp() AS was_held, l.awaited, \
               CASE WHEN l.expires > clock_timestamp() THEN a.lasts ELSE 0 END AS lasts \
              FROM asked AS a JOIN {table} AS l ON l.key = a.key WHERE l.owner = a.owner \
              ORDER BY l.key FOR NO KEY UPDATE OF l), \
             freed AS (UPDATE {table} AS l SET owner = CASE WHEN a.lasts > 0 THEN {NO_OWNER} END, \
               expires = {EXPIRES}, awaited = false \
              FROM own AS a WHERE l.key = a.key RETURNING l.key, a.place, a.was_held, a.awaited) \
             SELECT {kind}, a.place, (CASE WHEN freed.place IS NOT NULL THEN freed.was_held::int4 \
              WHEN l.owner <> {NO_OWNER} AND l.owner <> a.owner AND l.expires > clock_timestamp() THEN 2 \
              ELSE 0 END)::int8, {notified} \
             FROM asked AS a LEFT JOIN freed ON freed.place = a.place LEFT JOIN {table} AS l ON l.key = a.key",
            kind = kind::RELEASED,
        )
    }

    /// Renews the leases of these: what has expired is not revived.
    pub(in crate::postgres::lease_table) fn renew(
        &self,
        [keys, owners, lasts, places, not_after]: [&str; 5],
    ) -> String {
        let (table, asked) = (self.table, asked([keys, owners, lasts, places]));
        format!(
            "WITH asked AS ({asked}), \
             own AS (SELECT l.key, a.place, a.lasts FROM asked AS a JOIN {table} AS l ON l.key = a.key \
              WHERE l.owner = a.owner AND l.expires > clock_timestamp() AND {MICROS} <= {not_after}::int8 \
              ORDER BY l.key FOR NO KEY UPDATE OF l), \
             renewed AS (UPDATE {table} AS l SET lease = a.lasts, expires = {EXPIRES} \
              FROM own AS a WHERE l.key = a.key RETURNING a.place) \
             SELECT {kind}, place, NULL::int8, NULL::int8 FROM renewed",
            kind = kind::RENEWED,
        )
    }

    /// Acquires those that are free, up to the limit. What the same owner has been granted already is granted to it
    /// again. The place that this process has before readers ends with the grant; that of another stays.
    ///
    /// A row is passed over that another transaction has locked: a client that takes it now, or a transaction
    /// of a user that is [fenced](crate::postgres::lease_table::fence()) by it. Rows that are missing are made in
    /// the order of their keys.
    ///
    /// The release of those at the places `awaited` is notified, if they are refused here. A row that another
    /// transaction has locked meanwhile is not noted, nor one that was released between the look and the note: such
    /// a lock is polled.
    pub(in crate::postgres::lease_table) fn acquire(
        &self,
        [
            keys,
            owners,
            lasts,
            names,
            places,
            namespace,
            holder,
            not_after,
            limit,
            awaited,
            process,
        ]: [&str; 11],
    ) -> String {
        const IS_FREE: &str =
            "(l.owner IS NULL OR l.expires <= clock_timestamp() OR l.owner = a.owner)";
        const IS_ANOTHERS: &str = "l.owner <> a.owner AND l.expires > clock_timestamp()";
        const IS_ITS_OWN: &str = "l.owner = a.owner AND l.expires > clock_timestamp()";
        let (table, may_grant) = (self.table, self.may_grant(not_after));
        format!(
            "WITH asked AS (SELECT * FROM unnest({keys}::uuid[], {owners}::uuid[], {lasts}::int4[], \
              {names}::text[], {places}::int4[]) AS a(key, owner, lasts, name, place)), \
             server AS MATERIALIZED (SELECT server.token FROM {table} AS server \
              WHERE {may_grant}), \
             free AS MATERIALIZED (SELECT l.key, a.place FROM asked AS a JOIN {table} AS l ON l.key = a.key \
              CROSS JOIN server WHERE {IS_FREE} LIMIT {limit}::int8 FOR UPDATE OF l SKIP LOCKED), \
             taken AS (UPDATE {table} AS l SET owner = a.owner, holder = {holder}::text, lease = a.lasts, \
              expires = {EXPIRES}, \
              acquired = CASE WHEN {IS_ITS_OWN} THEN l.acquired ELSE clock_timestamp() END, \
              token = CASE WHEN {IS_ITS_OWN} THEN l.token \
               ELSE greatest(l.token + 1, server.token + 1, {MICROS}) END, \
              readers = NULL, readers_until = NULL, readers_since = NULL, readers_by = NULL, \
              wanted_until = CASE WHEN l.wanted_by = {process}::uuid THEN NULL ELSE l.wanted_until END, \
              wanted_by = nullif(l.wanted_by, {process}::uuid) \
              FROM free AS f JOIN asked AS a ON a.place = f.place CROSS JOIN server \
              WHERE l.key = f.key AND {IS_FREE} RETURNING a.place, l.token), \
             made AS (INSERT INTO {table} AS l (key, namespace, name, owner, holder, lease, expires, acquired, token) \
              SELECT a.key, {namespace}::text, a.name, a.owner, {holder}::text, a.lasts, {EXPIRES}, clock_timestamp(), \
               greatest(server.token + 1, {MICROS}) \
              FROM asked AS a CROSS JOIN server WHERE NOT EXISTS (SELECT FROM {table} AS l WHERE l.key = a.key) \
              ORDER BY a.key LIMIT greatest({limit}::int8 - (SELECT count(*) FROM free), 0) \
              ON CONFLICT (key) DO NOTHING RETURNING l.key, l.owner, l.token), \
             wanted AS MATERIALIZED (SELECT l.key FROM asked AS a JOIN {table} AS l ON l.key = a.key \
              CROSS JOIN server WHERE a.place = ANY ({awaited}::int4[]) \
              AND {IS_ANOTHERS} AND NOT l.awaited FOR NO KEY UPDATE OF l SKIP LOCKED), \
             noted AS (UPDATE {table} AS l SET awaited = true FROM wanted WHERE l.key = wanted.key) \
             SELECT CASE WHEN l.owner = {READERS} AND l.expires > clock_timestamp() \
               AND taken.token IS NULL THEN {read} ELSE {kind} END, \
              a.place, coalesce(taken.token, made.token), \
              CASE WHEN l.owner IS NULL THEN NULL WHEN {IS_TOO_LATE} THEN -1 ELSE {left} END \
             FROM asked AS a LEFT JOIN taken ON taken.place = a.place \
             LEFT JOIN made ON made.key = a.key AND made.owner = a.owner \
             LEFT JOIN {table} AS l ON l.key = a.key",
            kind = kind::ACQUIRED,
            read = kind::READ,
            left = left("l.expires"),
        )
    }

    /// Has rows of these, each a key, expire when they should that expire later, and the shares of readers with them:
    /// they were written before the clock of the server went back.
    pub(in crate::postgres::lease_table) fn bring_back(&self, keys: &str) -> String {
        let table = self.table;
        format!(
            "; WITH late AS MATERIALIZED (SELECT l.key FROM unnest('{{{keys}}}'::uuid[]) AS a(key) \
              JOIN {table} AS l ON l.key = a.key WHERE {IS_TOO_LATE} FOR NO KEY UPDATE OF l SKIP LOCKED) \
             UPDATE {table} AS l SET (expires, readers_until) = (SELECT ends.at, CASE WHEN l.readers_until IS NOT NULL \
               THEN ARRAY(SELECT least(r.until, ends.at) FROM unnest(l.readers_until) WITH ORDINALITY AS r(until, nth) \
                ORDER BY r.nth) END \
               FROM (SELECT clock_timestamp() + l.lease * interval '1 ms' AS at) AS ends) \
              FROM late WHERE l.key = late.key AND {IS_TOO_LATE}"
        )
    }

    /// Issues another token for each of these that is held: greater than all that the lock has had.
    pub(in crate::postgres::lease_table) fn issue(
        &self,
        [keys, owners, not_after]: [&str; 3],
    ) -> String {
        let (table, identity, server) = (self.table, self.identity.sql(), RowKey::SERVER);
        format!(
            "; WITH asked AS (SELECT key, owner, (place - 1)::int4 AS place \
              FROM unnest({keys}::uuid[], {owners}::uuid[]) WITH ORDINALITY AS a(key, owner, place)), \
             server AS MATERIALIZED (SELECT server.token FROM {table} AS server \
              WHERE server.key = '{server}'::uuid AND server.holder = {identity}), \
             own AS (SELECT l.key, a.place FROM asked AS a JOIN {table} AS l ON l.key = a.key CROSS JOIN server \
              WHERE l.owner = a.owner AND l.expires > clock_timestamp() AND {MICROS} <= {not_after}::int8 \
              ORDER BY l.key FOR NO KEY UPDATE OF l), \
             issued AS (UPDATE {table} AS l SET token = greatest(l.token + 1, server.token + 1, {MICROS}) \
              FROM own CROSS JOIN server WHERE l.key = own.key RETURNING own.place, l.token) \
             SELECT {kind}, place, token, NULL::int8 FROM issued",
            kind = kind::ISSUED,
        )
    }
}
