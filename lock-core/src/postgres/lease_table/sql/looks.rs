//! Questions that lock no row. Their locks are arrays of keys; answers name them by their places from 0.

use super::{NO_OWNER, NOW, Of, READERS, kind, left};
use crate::instance::LONGEST;

/// The shares of a row `l` that readers hold at this time.
pub(in crate::postgres::lease_table) fn shares_at(now: &str) -> String {
    format!(
        "(SELECT r.* FROM unnest(l.readers_until, l.readers_since, l.readers_by) AS r(until, since, who) \
          WHERE l.owner = {READERS} AND r.until > {now})"
    )
}

/// For how many microseconds the lock of a row `l`, or the share `r` of it, has been held at this time, if that can be.
pub(in crate::postgres::lease_table) fn held_for_at(now: &str) -> String {
    format!(
        "CASE WHEN isfinite(coalesce(r.since, l.acquired)) THEN \
         (extract(epoch FROM {now} - coalesce(r.since, l.acquired)) * 1000000)::int8 END"
    )
}

/// What any role with rights on the table can have written, if it can be a name or an instance, which are ASCII without
/// blanks, of so many characters at most; else nothing. No more than one character more is read of it. A database that
/// keeps any bytes would make an error of the whole answer for those that are no text.
pub(in crate::postgres::lease_table) fn plain(text: &str, longest: usize) -> String {
    let most = longest + 1;
    format!(
        "CASE WHEN left({text}, {most}) COLLATE \"C\" ~ '^[!-~]*$' THEN left({text}, {most}) ELSE '' END"
    )
}

fn asked(keys: &str) -> String {
    format!(
        "SELECT key, (place - 1)::int4 AS place FROM unnest({keys}::uuid[]) WITH ORDINALITY AS a(key, place)"
    )
}

impl Of<'_> {
    /// Looks which of these are free for a writer, or for a reader, or will be so within so many milliseconds.
    pub(in crate::postgres::lease_table) fn look(&self, [keys, soon]: [&str; 2]) -> String {
        let (table, asked) = (self.table, asked(keys));
        format!(
            "WITH asked AS ({asked}), \
             found AS (SELECT a.place, CASE WHEN l.owner IS NOT NULL AND l.expires > clock_timestamp() \
               THEN {left} ELSE 0 END AS whole, {for_readers} AS share \
              FROM asked AS a LEFT JOIN {table} AS l ON l.key = a.key) \
             SELECT {kind}, f.place, f.whole, f.share FROM found AS f WHERE least(f.whole, f.share) <= {soon}::int4",
            kind = kind::FREE,
            left = left("l.expires"),
            for_readers = self.left_for_readers(),
        )
    }

    /// Looks who holds these; of several readers, any.
    pub(in crate::postgres::lease_table) fn who_holds(&self, keys: &str) -> String {
        let (table, asked) = (self.table, asked(keys));
        format!(
            "; WITH asked AS ({asked}) \
             SELECT CASE WHEN l.owner = {READERS} THEN {read_by} ELSE {kind} END, a.place, \
              {held_for}, \
              CASE WHEN l.owner = {NO_OWNER} THEN {left} END, \
              {holder} \
             FROM asked AS a JOIN {table} AS l ON l.key = a.key \
              LEFT JOIN LATERAL (SELECT s.since, s.who FROM {shares} AS s LIMIT 1) AS r ON true \
             WHERE l.owner IS NOT NULL AND l.expires > clock_timestamp()",
            kind = kind::HELD_BY,
            read_by = kind::READ_BY,
            held_for = held_for_at(NOW),
            left = left("l.expires"),
            shares = shares_at(NOW),
            holder = plain("coalesce(r.who, l.holder)", LONGEST),
        )
    }
}
