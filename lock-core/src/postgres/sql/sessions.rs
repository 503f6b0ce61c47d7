//! What a session says of itself, and asks of others: its settings, its server, who holds what.

use crate::postgres::key::WANTED;

/// Names mean what PostgreSQL means by them, for as long as the session lives: what the path of the
/// role or of the database offers is not looked at. What follows says what is in force.
pub(in crate::postgres) const OWN_PATH: &str = concat!(
    without_wait!(),
    "; SET search_path = ",
    own_path!(),
    "; SHOW search_path"
);

/// What a session says whose names mean what PostgreSQL means by them; the second where it
/// quotes all names (`quote_all_identifiers`).
pub(in crate::postgres) const PATHS: [&str; 2] = [own_path!(), "\"pg_catalog\", \"pg_temp\""];

/// The same for one transaction, which waits for none.
pub(in crate::postgres) const LOCAL: [&str; 2] = [
    without_wait!(),
    concat!("SET LOCAL search_path = ", own_path!()),
];

/// What is known of the server before the session is known to be ours alone: nothing is set in it
/// that outlasts the transaction, since a proxy may give it to another client next.
pub(in crate::postgres) const LOOK: &str = in_one_transaction!(
    "SELECT current_setting('server_version_num')::int4, pg_is_in_recovery(), \
     current_setting('max_locks_per_transaction')::int8, current_setting('max_connections')::int8, \
     current_setting('server_encoding'), current_setting('extra_float_digits'), \
     current_setting('default_transaction_deferrable')"
);

/// Ends our former session, if it still lives, and waits until its place is free: it is the one that holds
/// its key, in the space of keys that are pairs. A proxy that has given it to another client has taken that
/// key from it. Other roles can read the key, and hold it too: only sessions of our kind are ended.
pub(in crate::postgres) fn end_former(identity: i64, shared: usize) -> String {
    format!(
        concat!(
            as_who_logged_in!(
                "SET LOCAL statement_timeout = 0; \
                 SELECT count(pg_terminate_backend(a.pid, 1000)) FROM pg_stat_activity AS a WHERE "
            ),
            our_kind!(),
            "AND EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid ",
            "AND l.locktype = 'advisory' AND l.mode = 'ShareLock' AND l.objsubid = 2 ",
            "AND ((l.classid::int8 << 32) | l.objid::int8) = '{identity}'::int8)"
        ),
        identity = identity,
        shared = shared
    )
}

/// Ends sessions of our kind that stand still inside a statement: their lease as milliseconds and as
/// the key that each of them holds shared. What the server's own limit on idle sessions does not see.
pub(in crate::postgres) fn reap(
    lease_ms: i64,
    lease_key: i64,
    shared: usize,
    within_ms: u64,
) -> String {
    format!(
        concat!(
            as_who_logged_in!(
                "SET LOCAL statement_timeout = {within}; \
                 SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity AS a WHERE "
            ),
            our_kind!(),
            "AND a.state <> 'idle' ",
            "AND a.state_change < clock_timestamp() - interval '{lease_ms} ms' ",
            "AND CASE WHEN a.state <> 'idle' THEN EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid ",
            "AND l.locktype = 'advisory' AND l.mode = 'ShareLock' AND l.objsubid = 1 ",
            "AND ((l.classid::int8 << 32) | l.objid::int8) = '{lease_key}'::int8) END"
        ),
        within = within_ms,
        lease_ms = lease_ms,
        lease_key = lease_key,
        shared = shared
    )
}

/// Who holds these keys, of which some are pairs: a row for each holder, with the key, whether it is a pair,
/// whether it is held exclusively, and what the session is called. It needs the rights of recovery.
pub(in crate::postgres) fn holders(
    keys: impl Iterator<Item = (i64, bool)>,
    within_ms: u64,
) -> String {
    let keys: Vec<_> = keys
        .map(|(key, is_pair)| format!("('{key}'::int8, {is_pair})"))
        .collect();
    format!(
        as_who_logged_in!(
            "SET LOCAL statement_timeout = {within}; \
             SELECT t.k, t.p, l.mode = 'ExclusiveLock', a.application_name \
             FROM (VALUES {keys}) AS t(k, p), pg_locks AS l, pg_stat_activity AS a \
             WHERE l.locktype = 'advisory' AND l.granted AND a.pid = l.pid AND a.datname = current_database() \
             AND ((l.classid::int8 << 32) | l.objid::int8) = t.k \
             AND CASE WHEN t.p THEN l.objsubid = 2 ELSE l.objsubid = 1 END"
        ),
        within = within_ms,
        keys = keys.join(", ")
    )
}

/// What is held exclusively in this database, by whichever program: a row for each, with the two halves of the
/// key, which kind of key it is, and what the session is called; no more than so many. A writer that waits for readers
/// is none: what it holds is a key of its own. It needs the rights of recovery, and no operator but those that they
/// name.
pub(in crate::postgres) fn listing(limit: usize, within_ms: u64) -> String {
    format!(
        as_who_logged_in!(
            "SET LOCAL statement_timeout = {within}; \
             SELECT l.classid::int8, l.objid::int8, l.objsubid, a.application_name \
             FROM pg_locks AS l, pg_stat_activity AS a \
             WHERE l.locktype = 'advisory' AND l.granted AND l.mode = 'ExclusiveLock' AND a.pid = l.pid \
             AND a.datname = current_database() \
             AND CASE WHEN l.objsubid = 1 AND l.objid::int8 = '{wanted}'::int8 THEN false ELSE true END LIMIT {limit}"
        ),
        within = within_ms,
        wanted = WANTED,
        limit = i64::try_from(limit).unwrap_or(i64::MAX)
    )
}
