//! The statements, and the one-letter answers of a batch.
//!
//! Whatever must happen in order within one lock is one `CASE`, whose branches PostgreSQL evaluates
//! in order; the locks of a batch are rows of one scan. Each statement runs only in the session that
//! it was meant for, and its answer there begins with a value that is not NULL: a proxy that moves us
//! to another one makes it answer NULL, or nothing.

pub(super) use super::key::EVERYTHING;

/// The channel of releases.
pub(super) const CHANNEL: &str = "distributed_lock";

/// Receives them from the end of this statement on: it is never one with a try, whose transaction would
/// begin to listen after it has looked.
pub(super) const LISTEN: &str = "LISTEN distributed_lock";

pub(super) const UNLISTEN: &str = "UNLISTEN distributed_lock";

/// What a row of a batch does; the number is the row's `op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Unlock, and notify the waiters.
    Release = 1,
    /// Try to lock.
    Try = 2,
    /// Register as waiting, then try to lock.
    RegisterAndTry = 3,
    /// Try to lock what we are registered for; no longer registered when that works.
    TryRegistered = 4,
    /// Not waiting any more.
    Unregister = 5,
    /// Register as waiting, also for everything.
    Register = 6,
    /// After the releases: notify those that wait for everything.
    TellEverybody = 7,
    /// Try to lock, unless another session waits.
    TryPolitely = 8,
    /// Unlock, and tell none: the server takes no notifications.
    ReleaseQuietly = 9,
    /// Keep new readers out.
    Want = 10,
    /// Keep them out no more.
    Unwant = 11,
    /// Try to lock for a reader.
    Read = 12,
    /// Look whether another reader may join those of this session.
    Join = 13,
    /// Unlock after the last reader, and notify the waiters.
    ReleaseRead = 14,
    /// The same, and tell none.
    ReleaseReadQuietly = 15,
}

/// The answers: one letter a row.
pub(super) mod answer {
    /// The lock is ours.
    pub(crate) const GRANTED: u8 = b'g';
    /// Another holds the lock.
    pub(crate) const HELD: u8 = b'h';
    /// Another holds the lock; we are registered as waiting.
    pub(crate) const REGISTERED: u8 = b'r';
    /// As [`HELD`], and the holders are readers.
    pub(crate) const READ: u8 = b's';
    /// As [`REGISTERED`], and the holders are readers.
    pub(crate) const REGISTERED_BESIDE_READERS: u8 = b'q';
    /// Unlocked; another session waits, and was notified.
    pub(crate) const AWAITED: u8 = b'w';
    /// There was nothing of ours to unlock.
    pub(crate) const NOT_OURS: u8 = b'n';
}

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

// After a refusal: whether readers are what holds it, which a shared lock for a moment tells. They leave that room.
// What is free again by then is notified, since its release finds the registration.
macro_rules! whose {
    (try_lock, $k:literal, $no:literal, $readers:literal) => {
        concat!(
            "CASE WHEN pg_catalog.pg_try_advisory_lock_shared(",
            $k,
            ") THEN CASE WHEN ",
            unlock_shared!($k),
            " THEN '",
            $readers,
            "' END ELSE '",
            $no,
            "' END"
        )
    };
    // Pairs have no readers.
    (try_lock_either, $k:literal, $no:literal, $readers:literal) => {
        concat!(
            "CASE WHEN p THEN '",
            $no,
            "' ELSE ",
            whose!(try_lock, $k, $no, $readers),
            " END"
        )
    };
}

// A reader comes in unless another session wants the lock for itself: that is looked at by a shared lock for a
// moment, which keeps no other reader from looking.
macro_rules! as_reader {
    ($want:literal, $then:expr) => {
        concat!(
            "CASE WHEN pg_catalog.pg_try_advisory_lock_shared(",
            $want,
            ") THEN CASE WHEN ",
            unlock_shared!($want),
            " THEN ",
            $then,
            " END ELSE 'h' END"
        )
    };
}

macro_rules! read {
    ($k:literal, $want:literal) => {
        as_reader!(
            $want,
            concat!(
                "CASE WHEN pg_catalog.pg_try_advisory_lock_shared(",
                $k,
                ") THEN 'g' ELSE 'h' END"
            )
        )
    };
}

macro_rules! join {
    ($want:literal) => {
        as_reader!($want, "'g'")
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

// Whether a session waits is asked by taking the key that it would hold, for a moment: after the
// unlock, so that one that registers later finds the lock free. Our own registration is no obstacle.
macro_rules! release {
    ($unlock:ident, $k:literal, $w:literal) => {
        concat!(
            "CASE WHEN NOT ",
            $unlock!($k),
            " THEN 'n' ",
            "WHEN pg_catalog.pg_try_advisory_lock(",
            $w,
            ") THEN CASE WHEN pg_catalog.pg_advisory_unlock(",
            $w,
            ") THEN 'u' END ",
            "ELSE 'w' || pg_catalog.pg_notify('distributed_lock', pg_catalog.to_hex(",
            $k,
            "))::text END"
        )
    };
}

macro_rules! tell_everybody {
    ($everything:literal, $keys:literal) => {
        concat!(
            "CASE WHEN pg_catalog.pg_try_advisory_lock(",
            $everything,
            ") ",
            "THEN CASE WHEN pg_catalog.pg_advisory_unlock(",
            $everything,
            ") THEN 'u' END ",
            "ELSE 'w' || pg_catalog.pg_notify('distributed_lock', ",
            $keys,
            ")::text END"
        )
    };
}

macro_rules! attempt {
    ($try:ident, $k:literal) => {
        concat!("CASE WHEN ", $try!($k), " THEN 'g' ELSE 'h' END")
    };
}

macro_rules! attempt_registered {
    ($try:ident, $k:literal, $w:literal, $else:literal, $readers:literal) => {
        concat!(
            "CASE WHEN ",
            $try!($k),
            " THEN CASE WHEN pg_catalog.pg_advisory_unlock_shared(",
            $w,
            ") THEN 'g' ELSE 'g' END ELSE ",
            whose!($try, $k, $else, $readers),
            " END"
        )
    };
}

macro_rules! register_and_try {
    ($try:ident, $k:literal, $w:literal) => {
        concat!(
            "CASE WHEN pg_catalog.pg_try_advisory_lock_shared(",
            $w,
            ") THEN ",
            attempt_registered!($try, $k, $w, "r", "q"),
            " ELSE ",
            attempt!($try, $k),
            " END"
        )
    };
}

macro_rules! alone {
    ($what:expr) => {
        concat!(
            "SELECT CASE WHEN ",
            in_our_session!(),
            " THEN ",
            $what,
            " END"
        )
    };
}

macro_rules! release_alone {
    ($unlock:ident) => {
        alone!(concat!(
            release!($unlock, "$2", "$3"),
            " || ",
            tell_everybody!("$4", "pg_catalog.to_hex($2)")
        ))
    };
}

/// A batch of one release: session, key, waiters' key, the key of all.
pub(super) const RELEASE: &str = release_alone!(unlock);

/// A batch of one try: session, key. Alone, as a caller without company is, a try needs neither the arrays of a batch
/// nor a scan of them.
pub(super) const TRY: &str = alone!(attempt!(try_lock, "$2"));

/// A batch of one try with a registration: session, key, waiters' key.
pub(super) const REGISTER_AND_TRY: &str = alone!(register_and_try!(try_lock, "$2", "$3"));

/// A batch of one try after a registration: session, key, waiters' key.
pub(super) const TRY_REGISTERED: &str = alone!(attempt_registered!(try_lock, "$2", "$3", "h", "s"));

/// A batch of one try of a reader: session, key, the key of a writer that waits.
pub(super) const READ: &str = alone!(read!("$2", "$3"));

/// A batch of one reader that joins others: session, the key of a writer that waits.
pub(super) const JOIN: &str = alone!(join!("$2"));

/// A batch of one release after the last reader: as [`RELEASE`].
pub(super) const RELEASE_READ: &str = release_alone!(unlock_shared);

macro_rules! batch {
    ($try:ident, $unlock:ident, $rows:literal) => {
        concat!(
            "SELECT pg_catalog.string_agg(CASE op ",
            "WHEN 1 THEN ",
            release!($unlock, "k", "w"),
            " WHEN 2 THEN ",
            attempt!($try, "k"),
            " WHEN 3 THEN ",
            register_and_try!($try, "k", "w"),
            " WHEN 4 THEN ",
            attempt_registered!($try, "k", "w", "h", "s"),
            " WHEN 5 THEN CASE WHEN pg_catalog.pg_advisory_unlock_shared(w) THEN 'u' ELSE 'u' END",
            " WHEN 6 THEN CASE WHEN pg_catalog.pg_try_advisory_lock_shared(w) THEN 'r' ELSE 'h' END",
            " WHEN 8 THEN CASE WHEN pg_catalog.pg_try_advisory_lock(w) THEN CASE WHEN pg_catalog.pg_advisory_unlock(w) ",
            "AND pg_catalog.pg_try_advisory_lock($5) THEN CASE WHEN pg_catalog.pg_advisory_unlock($5) THEN ",
            attempt!($try, "k"),
            " END ELSE 'h' END ELSE 'h' END ",
            "WHEN 9 THEN CASE WHEN ",
            $unlock!("k"),
            " THEN 'u' ELSE 'n' END",
            " WHEN 10 THEN CASE WHEN pg_catalog.pg_try_advisory_lock(w) THEN 'r' ELSE 'h' END",
            " WHEN 11 THEN CASE WHEN pg_catalog.pg_advisory_unlock(w) THEN 'u' ELSE 'u' END",
            " WHEN 12 THEN ",
            read!("k", "w"),
            " WHEN 13 THEN ",
            join!("w"),
            " WHEN 14 THEN ",
            release!(unlock_shared, "k", "w"),
            " WHEN 15 THEN CASE WHEN ",
            unlock_shared!("k"),
            " THEN 'u' ELSE 'n' END WHEN 7 THEN ",
            tell_everybody!(
                "w",
                "(SELECT pg_catalog.string_agg(pg_catalog.to_hex(r.k), ',') FROM unnest($2::int2[], $3::int8[]) AS r(op, k) WHERE r.op IN (1, 14))"
            ),
            " END, '') FROM unnest($2::int2[], $3::int8[], $4::int8[]",
            $rows,
            " WHERE (SELECT ",
            in_our_session!(),
            ")"
        )
    };
}

/// A batch whose keys are bigints: session, steps, keys, waiters' keys, the key of all. One letter a row, in
/// their order.
pub(super) const BATCH: &str = batch!(try_lock, unlock, ") AS t(op, k, w)");

/// Any batch: the same, and which of the keys are pairs.
pub(super) const BATCH_WITH_PAIRS: &str = batch!(
    try_lock_either,
    unlock_either,
    ", $6::bool[]) AS t(op, k, w, p)"
);

/// How many releases one batch has at most: their keys are the payload of one notification, which
/// has less than 8,000 bytes.
pub(super) const RELEASES: usize = 450;

macro_rules! claim {
    ($try:ident, $rows:literal) => {
        concat!(
            "SELECT true, ARRAY(SELECT k FROM unnest($2::int8[]",
            $rows,
            " WHERE CASE WHEN ",
            in_our_session!(),
            " THEN ",
            $try!("k"),
            " END LIMIT $3) WHERE ",
            in_our_session!()
        )
    };
}

/// Of many locks as many as are asked for: session, keys, which are bigints, how many. The scan ends with
/// the last of them, so that no more are locked.
pub(super) const CLAIM: &str = claim!(try_lock, ") AS t(k)");

/// The same for any keys: and which of them are pairs.
pub(super) const CLAIM_WITH_PAIRS: &str = claim!(try_lock_either, ", $4::bool[]) AS t(k, p)");

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

/// Names mean what PostgreSQL means by them, for as long as the session lives: what the path of the
/// role or of the database offers is not looked at. What follows says what is in force.
pub(super) const OWN_PATH: &str = concat!(
    without_wait!(),
    "; SET search_path = ",
    own_path!(),
    "; SHOW search_path"
);

/// What a session says whose names mean what PostgreSQL means by them; the second where it
/// quotes all names (`quote_all_identifiers`).
pub(super) const PATHS: [&str; 2] = [own_path!(), "\"pg_catalog\", \"pg_temp\""];

/// The same for one transaction, which waits for none.
pub(super) const LOCAL: [&str; 2] = [
    without_wait!(),
    concat!("SET LOCAL search_path = ", own_path!()),
];

/// What is known of the server before the session is known to be ours alone: nothing is set in it
/// that outlasts the transaction, since a proxy may give it to another client next.
pub(super) const LOOK: &str = in_one_transaction!(
    "SELECT current_setting('server_version_num')::int4, pg_is_in_recovery(), \
     current_setting('max_locks_per_transaction')::int8, current_setting('max_connections')::int8, \
     current_setting('server_encoding'), current_setting('extra_float_digits'), \
     current_setting('default_transaction_deferrable')"
);

/// Ends our former session, if it still lives, and waits until its place is free: it is the one that holds
/// its key, in the space of keys that are pairs. A proxy that has given it to another client has taken that
/// key from it. Other roles can read the key, and hold it too: only sessions of our kind are ended.
pub(super) fn end_former(identity: i64, shared: usize) -> String {
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
pub(super) fn reap(lease_ms: i64, lease_key: i64, shared: usize) -> String {
    format!(
        concat!(
            as_who_logged_in!(
                "SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity AS a WHERE "
            ),
            our_kind!(),
            "AND a.state <> 'idle' ",
            "AND a.state_change < clock_timestamp() - interval '{lease_ms} ms' ",
            "AND CASE WHEN a.state <> 'idle' THEN EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid ",
            "AND l.locktype = 'advisory' AND l.mode = 'ShareLock' AND l.objsubid = 1 ",
            "AND ((l.classid::int8 << 32) | l.objid::int8) = '{lease_key}'::int8) END"
        ),
        lease_ms = lease_ms,
        lease_key = lease_key,
        shared = shared
    )
}

/// Who holds these keys, of which some are pairs: a row for each holder, with the key, whether it is a pair,
/// whether it is held exclusively, and what the session is called. It needs the rights of recovery.
pub(super) fn holders(keys: impl Iterator<Item = (i64, bool)>) -> String {
    let keys: Vec<_> = keys
        .map(|(key, is_pair)| format!("('{key}'::int8, {is_pair})"))
        .collect();
    format!(
        as_who_logged_in!(
            "SELECT t.k, t.p, l.mode = 'ExclusiveLock', a.application_name \
             FROM (VALUES {keys}) AS t(k, p), pg_locks AS l, pg_stat_activity AS a \
             WHERE l.locktype = 'advisory' AND l.granted AND a.pid = l.pid AND a.datname = current_database() \
             AND ((l.classid::int8 << 32) | l.objid::int8) = t.k \
             AND CASE WHEN t.p THEN l.objsubid = 2 ELSE l.objsubid = 1 END"
        ),
        keys = keys.join(", ")
    )
}

/// What is held exclusively in this database, by whichever program: a row for each, with the two halves of the
/// key, which kind of key it is, and what the session is called; no more than so many. It needs the rights of
/// recovery.
pub(super) fn listing(limit: usize) -> String {
    format!(
        as_who_logged_in!(
            "SELECT l.classid::int8, l.objid::int8, l.objsubid, a.application_name \
             FROM pg_locks AS l, pg_stat_activity AS a \
             WHERE l.locktype = 'advisory' AND l.granted AND l.mode = 'ExclusiveLock' AND a.pid = l.pid \
             AND a.datname = current_database() LIMIT {limit}"
        ),
        limit = i64::try_from(limit).unwrap_or(i64::MAX)
    )
}
