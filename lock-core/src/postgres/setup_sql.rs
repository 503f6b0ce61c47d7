//! The statements with which a session is opened. Each is one exchange, without parameters, which would
//! cost another one: what is written into them is numbers, and text that needs no quotes.
//!
//! The path comes first, and nothing depends on it: names of functions and operators have their schema.

use super::sql::{CHANNEL, OWN_PATH, WITHOUT_WAIT};

/// Which session this is: behind a proxy it can be another one with each statement.
pub(super) fn session() -> String {
    format!("{WITHOUT_WAIT}; SELECT pg_catalog.pg_backend_pid()")
}

/// Leaves a setting and a lock in a session, for [`find`] and [`try_left`] in others.
pub(super) fn leave(left: i64) -> String {
    format!(
        "{WITHOUT_WAIT}; SELECT pg_catalog.set_config('distributed_lock.left', '{left}', false), \
         pg_catalog.pg_try_advisory_lock('{left}'::bigint)"
    )
}

/// The setting that was left in this session.
pub(super) fn find() -> String {
    format!("{WITHOUT_WAIT}; SELECT pg_catalog.current_setting('distributed_lock.left', true)")
}

/// Whether no session has the lock that was left. It is this session's then, until [`untry`].
pub(super) fn try_left(left: i64) -> String {
    format!("{WITHOUT_WAIT}; SELECT pg_catalog.pg_try_advisory_lock('{left}'::bigint)")
}

/// The session begins: its path, its settings, its marker, the key of its lease, the one that it alone
/// has, and one to show that it excludes. One transaction: all of it counts, or nothing does.
///
/// Rows: the path; a setting each, of those that were made; a setting and its value each; and whether
/// it has each key.
pub(super) fn begin(
    settings: impl Iterator<Item = (&'static str, u64)>,
    marker: &str,
    lease_key: i64,
    identity: i64,
    tried: i64,
) -> String {
    let (names, values): (Vec<_>, Vec<_>) = settings
        .map(|(name, value)| (format!("'{name}'"), format!("('{name}', '{value}')")))
        .unzip();
    let (names, values) = (names.join(", "), values.join(", "));
    let (high, low) = ((identity >> 32) as i32, identity as i32);
    // Settings that this version does not have are left out by the join.
    format!(
        "{OWN_PATH}; \
         SELECT pg_catalog.set_config(s.name, t.value, false) \
         FROM (VALUES {values}) AS t(name, value) \
         JOIN pg_catalog.pg_settings AS s ON s.name OPERATOR(pg_catalog.=) t.name; \
         SELECT name, setting FROM pg_catalog.pg_settings \
         WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY[{names}]); \
         SELECT pg_catalog.pg_try_advisory_lock_shared('{lease_key}'::bigint), \
         pg_catalog.pg_try_advisory_lock_shared('{high}'::integer, '{low}'::integer), \
         pg_catalog.pg_try_advisory_lock('{tried}'::bigint), \
         pg_catalog.set_config('distributed_lock.session', '{marker}', false), \
         pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', false), \
         pg_catalog.set_config('client_min_messages', 'error', false), \
         pg_catalog.set_config('default_transaction_isolation', 'read committed', false), \
         pg_catalog.set_config('default_transaction_deferrable', 'off', false), \
         pg_catalog.set_config('default_transaction_read_only', 'off', false)"
    )
}

/// The witness tries what the session holds, and says where it is. Rows: the path; whether it has the
/// key; those of `home`.
pub(super) fn witness(tried: i64, home: &str) -> String {
    format!("{OWN_PATH}; SELECT pg_catalog.pg_try_advisory_lock('{tried}'::bigint); {home}")
}

/// The session gives back what it had taken to show that it excludes.
pub(super) fn untry(tried: i64) -> String {
    format!("SELECT pg_catalog.pg_advisory_unlock('{tried}'::bigint)")
}

/// The witness can have it now. Then it has the server end it: it stays as a place, and nothing is
/// sent over it.
pub(super) fn end_witness(tried: i64) -> String {
    format!(
        "{WITHOUT_WAIT}; \
         SELECT pg_catalog.pg_try_advisory_lock('{tried}'::bigint); \
         SELECT pg_catalog.pg_advisory_unlock('{tried}'::bigint); \
         SELECT pg_catalog.set_config('idle_session_timeout', '1', false)"
    )
}

/// Tells `payload`, which needs no quotes, before the session is set up, where a wait for others must
/// end as well.
pub(super) fn tell_in_time(payload: &str) -> String {
    format!(
        "{WITHOUT_WAIT}; SET LOCAL lock_timeout = 200; \
         SELECT pg_catalog.pg_notify('{CHANNEL}', '{payload}')"
    )
}
