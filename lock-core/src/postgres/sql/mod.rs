//! The statements, and the one-letter answers of a batch.
//!
//! Whatever must happen in order within one lock is one `CASE`, whose branches PostgreSQL evaluates
//! in order; the locks of a batch are rows of one scan. Each statement runs only in the session that
//! it was meant for, and its answer there begins with a value that is not NULL: a proxy that moves us
//! to another one makes it answer NULL, or nothing.

pub(super) use self::batch::{
    BATCH, BATCH_WITH_PAIRS, CLAIM, CLAIM_WITH_PAIRS, JOIN, READ, REGISTER_AND_TRY, RELEASE,
    RELEASE_READ, RELEASES, Step, TRY, TRY_REGISTERED, answer,
};
pub(super) use self::sessions::{LOCAL, LOOK, OWN_PATH, PATHS, end_former, holders, listing, reap};
pub(super) use super::key::EVERYTHING;

/// The channel of releases.
pub(super) const CHANNEL: &str = "distributed_lock";

/// Receives them from the end of this statement on: it is never one with a try, whose transaction would
/// begin to listen after it has looked.
pub(super) const LISTEN: &str = "LISTEN distributed_lock";

pub(super) const UNLISTEN: &str = "UNLISTEN distributed_lock";

macro_rules! own_path {
    () => {
        "pg_catalog, pg_temp"
    };
}

// A role can have transactions that wait until no other runs that is serializable.
macro_rules! without_wait {
    () => {
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
    };
}

macro_rules! in_one_transaction {
    ($statement:expr) => {
        concat!(
            without_wait!(),
            "; SET LOCAL search_path = ",
            own_path!(),
            "; ",
            $statement
        )
    };
}

// A role that becomes another one when it logs in may not see or end its own sessions as that.
macro_rules! as_who_logged_in {
    ($statement:expr) => {
        in_one_transaction!(concat!("SET LOCAL ROLE NONE; ", $statement))
    };
}

// The role is the one that logged in, also for sessions that look. What sessions of a service are called has a
// beginning that is the same, of so many characters.
macro_rules! our_kind {
    () => {
        "a.datname = current_database() AND a.usename = session_user \
         AND substr(a.application_name || ' ', 1, {shared} + 1) = \
         substr(current_setting('application_name') || ' ', 1, {shared} + 1) AND a.pid <> pg_backend_pid() "
    };
}

macro_rules! in_our_session {
    () => {
        "pg_catalog.current_setting('distributed_lock.session', true) OPERATOR(pg_catalog.=) $1"
    };
}

/// First in a transaction of a session that is not set up yet.
pub(super) const WITHOUT_WAIT: &str = without_wait!();

/// What the session looks for in each statement.
pub(super) const IN_OUR_SESSION: &str = in_our_session!();

macro_rules! try_lock {
    ($k:literal) => {
        concat!("pg_catalog.pg_try_advisory_lock(", $k, ")")
    };
}

macro_rules! unlock {
    ($k:literal) => {
        concat!("pg_catalog.pg_advisory_unlock(", $k, ")")
    };
}

macro_rules! unlock_shared {
    ($k:literal) => {
        concat!("pg_catalog.pg_advisory_unlock_shared(", $k, ")")
    };
}

// The halves of a key that is a pair, as each row of a batch says by `p`.
macro_rules! halves {
    ($k:literal) => {
        concat!("(", $k, " >> 32)::int4, (", $k, " << 32 >> 32)::int4")
    };
}

macro_rules! try_lock_either {
    ($k:literal) => {
        concat!(
            "CASE WHEN p THEN pg_catalog.pg_try_advisory_lock(",
            halves!($k),
            ") ELSE ",
            try_lock!($k),
            " END"
        )
    };
}

macro_rules! unlock_either {
    ($k:literal) => {
        concat!(
            "CASE WHEN p THEN pg_catalog.pg_advisory_unlock(",
            halves!($k),
            ") ELSE ",
            unlock!($k),
            " END"
        )
    };
}

// After the macros that they use.
mod batch;
mod sessions;

/// A token: the timeline of the server and a transaction of its own, which is durable once the
/// commit was answered, here, whatever the standbys do.
pub(super) const TOKEN: &str = concat!(
    "SELECT pg_catalog.set_config('synchronous_commit', 'local', true), ",
    "pg_catalog.pg_logical_emit_message(true, 'distributed_lock', '')::text, ",
    "('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int8, ",
    "pg_catalog.pg_current_xact_id()::text::int8 WHERE ",
    in_our_session!()
);

/// Whether this is the session that we think it is, and whether its server has become one that only reads: a
/// primary can become a standby, and leave its connections open. A proxy that balances, as Pgpool-II, sends to a standby
/// what only reads, and to the primary what names a volatile function or the catalog, as all statements
/// here do: this one names a function that never runs, since the server drops it from the plan.
pub(super) const HEARTBEAT: &str = concat!(
    "SELECT true, pg_catalog.pg_is_in_recovery() WHERE ",
    in_our_session!(),
    " AND (true OR pg_catalog.pg_advisory_unlock(0))"
);

/// All our advisory locks, whether each is exclusive, and whether it is a pair; without the pair that is
/// held shared, which names the session.
pub(super) const AUDIT: &str = concat!(
    "SELECT (classid::int8 << 32) | objid::int8, mode = 'ExclusiveLock', objsubid = 2 FROM pg_catalog.pg_locks ",
    "WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid() AND granted ",
    "AND (objsubid = 1 OR mode = 'ExclusiveLock') AND ",
    in_our_session!()
);

/// Unlocks what an audit found: session, keys, keys that are held shared, and which of the former are pairs.
pub(super) const SWEEP: &str = concat!(
    "SELECT (SELECT pg_catalog.count(",
    unlock_either!("k"),
    ") FROM unnest($2::int8[], $4::bool[]) AS t(k, p)), ",
    "(SELECT pg_catalog.count(pg_catalog.pg_advisory_unlock_shared(k)) FROM pg_catalog.unnest($3::int8[]) AS t(k)) WHERE ",
    in_our_session!()
);

/// Tells that these keys were unlocked: session, payload.
pub(super) const TELL: &str = concat!(
    "SELECT pg_catalog.pg_notify('distributed_lock', $2)::text WHERE ",
    in_our_session!()
);
