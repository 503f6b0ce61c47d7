//! The statements that carry most commands: tries, registrations and releases of one lock or of many, and claims.

/// What a row of a batch does; the number is the row's `op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres) enum Step {
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
pub(in crate::postgres) mod answer {
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

// After a refusal: whether readers are what holds it, which a shared lock for a moment tells. They leave that room.
// What is free again by then is notified, since its release finds the registration. For that moment it refuses a
// try of another session for itself, which is as one that came before the release.
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
pub(in crate::postgres) const RELEASE: &str = release_alone!(unlock);

/// A batch of one try: session, key. Alone, as a caller without company is, a try needs neither the arrays of a batch
/// nor a scan of them.
pub(in crate::postgres) const TRY: &str = alone!(attempt!(try_lock, "$2"));

/// A batch of one try with a registration: session, key, waiters' key.
pub(in crate::postgres) const REGISTER_AND_TRY: &str =
    alone!(register_and_try!(try_lock, "$2", "$3"));

/// A batch of one try after a registration: session, key, waiters' key.
pub(in crate::postgres) const TRY_REGISTERED: &str =
    alone!(attempt_registered!(try_lock, "$2", "$3", "h", "s"));

/// A batch of one try of a reader: session, key, the key of a writer that waits.
pub(in crate::postgres) const READ: &str = alone!(read!("$2", "$3"));

/// A batch of one reader that joins others: session, the key of a writer that waits.
pub(in crate::postgres) const JOIN: &str = alone!(join!("$2"));

/// A batch of one release after the last reader: as [`RELEASE`].
pub(in crate::postgres) const RELEASE_READ: &str = release_alone!(unlock_shared);

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
pub(in crate::postgres) const BATCH: &str = batch!(try_lock, unlock, ") AS t(op, k, w)");

/// Any batch: the same, and which of the keys are pairs.
pub(in crate::postgres) const BATCH_WITH_PAIRS: &str = batch!(
    try_lock_either,
    unlock_either,
    ", $6::bool[]) AS t(op, k, w, p)"
);

/// How many releases one batch has at most: their keys are the payload of one notification, which
/// has less than 8,000 bytes.
pub(in crate::postgres) const RELEASES: usize = 450;

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
pub(in crate::postgres) const CLAIM: &str = claim!(try_lock, ") AS t(k)");

/// The same for any keys: and which of them are pairs.
pub(in crate::postgres) const CLAIM_WITH_PAIRS: &str =
    claim!(try_lock_either, ", $4::bool[]) AS t(k, p)");
