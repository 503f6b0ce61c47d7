//! What one request does in the server.
//!
//! The statements of a request are one transaction, and each looks at what is committed when it begins. Rows
//! are locked in the order of their keys where a statement waits for them, so that two requests do not wait for
//! each other; what a writer is to take is never waited for. A request with readers waits for all rows in its first
//! statement, [`gather`](Of::gather). Names mean what PostgreSQL means by them.
//!
//! `clock_timestamp()` and not `now()`, which is when the transaction began: a statement that has waited sees
//! what the time is then.

mod locks;
mod looks;
mod marks;
mod places;
mod rows;
mod server;
mod shares;

use std::time::Duration;

use super::identity::Identity;
use super::key::RowKey;
use super::names::CHANNEL;
pub(super) use locks::NO_OWNER;
pub(super) use looks::{held_for_at, plain, shares_at};
pub(super) use server::SWEPT;

/// What a row of an answer says; its first column.
pub(super) mod kind {
    /// Number of the request, time in microseconds, and what is left of the quarantine in milliseconds: below 0
    /// on a server that is another one than its row says.
    pub(crate) const HEAD: i32 = 0;
    /// Place, and 1 where the lock was held, 0 where it was not, 2 where it is another owner's; then whether
    /// other processes were notified.
    pub(crate) const RELEASED: i32 = 1;
    /// Place, of those alone that were renewed.
    pub(crate) const RENEWED: i32 = 2;
    /// Place, and the token, or how many milliseconds are left to the holder: below 0 where the row ends too late.
    pub(crate) const ACQUIRED: i32 = 3;
    /// Place, and the token, of those alone that are held.
    pub(crate) const ISSUED: i32 = 4;
    /// Place, and in how many milliseconds the lock is free for a writer and for a reader, of those alone for which
    /// one of these is soon.
    pub(crate) const FREE: i32 = 5;
    /// Position of a key of advisory locks that a session holds.
    pub(crate) const MARKED: i32 = 6;
    /// What was asked for was notified.
    pub(crate) const NOTIFIED: i32 = 7;
    /// Place, for how many microseconds the lock is held, if that can be, in how many milliseconds it opens that
    /// is kept closed after its release, and the instance in a fifth column; of those alone that are held or kept.
    pub(crate) const HELD_BY: i32 = 8;
    /// The same of one of its readers.
    pub(crate) const READ_BY: i32 = 9;
    /// As [`ACQUIRED`], of a lock that a writer is refused because readers hold it.
    pub(crate) const READ: i32 = 10;
    /// Place, of those alone for which this writer has a place before readers.
    pub(crate) const WANTED: i32 = 11;
    /// Place, of those alone whose row another transaction made or swept while this one waited for it: they are sent again.
    pub(crate) const MET: i32 = 12;
    /// Rows were locked.
    pub(crate) const GATHERED: i32 = 13;
    /// How many rows were removed.
    pub(crate) const SWEPT: i32 = 14;
}

/// Whom a lock is of that readers hold: no acquire has it.
///
/// The row has an owner and expires, as that of a writer does, when the last share of it ends at the latest. So a
/// writer that looks at these alone, as one of a version without readers does, finds a lock that is held.
pub(super) const READERS: &str = "'ffffffff-ffff-ffff-ffff-ffffffffffff'::pg_catalog.uuid";

/// Whether readers hold the lock of a row. Its arrays mean something only then: what has expired, and was taken by a
/// writer of an earlier version, has them still.
fn is_read() -> String {
    format!("(l.owner = {READERS} AND l.expires > clock_timestamp())")
}

/// What holds for all locks of a request.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'a> {
    /// How long they are held without a renewal.
    pub length: Duration,
    /// After this, in microseconds of the server's clock, nothing is acquired, renewed or issued.
    pub not_after: i64,
    /// The instance, for operators.
    pub holder: &'a str,
    /// The namespace, for operators.
    pub namespace: &'a str,
    /// Whose the places of writers are that wait; not 0.
    pub process: u128,
}

/// The table, as statements name it, and how its server is told from others.
#[derive(Clone, Debug)]
pub(super) struct Of<'a> {
    /// Schema and table, quoted.
    pub(super) table: &'a str,
    pub(super) identity: Identity,
}

/// A request begins: as all of them are, whatever the role and the database have set. It waits for no
/// standby, and for others no longer than a moment. Plans are made once, and for a table of any size.
pub(super) const BEGIN: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; \
     SET LOCAL search_path = pg_catalog, pg_temp; \
     SET LOCAL synchronous_commit = local; \
     SET LOCAL lock_timeout = 500; \
     SET LOCAL plan_cache_mode = force_generic_plan; \
     SET LOCAL enable_seqscan = off; \
     SET LOCAL jit = off; ";

/// The time, which goes on from row to row.
const NOW: &str = "clock_timestamp()";

/// The time, in microseconds since 1970.
const MICROS: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::int8";

/// Whether a row was written before the clock of the server went back.
const IS_TOO_LATE: &str =
    "l.expires > clock_timestamp() + (l.lease + 1000::int8) * interval '1 ms'";

/// Notifies the end of the locks `freed` that processes wait for, unless they are `deaf`: together with the commit of
/// this transaction. `void` has a value.
fn notified(deaf: &str) -> String {
    format!(
        "CASE WHEN freed.awaited AND NOT {deaf}::bool \
         THEN (pg_notify('{CHANNEL}', freed.key::text) IS NOT NULL)::int4::int8 END"
    )
}

/// How many milliseconds are left until this time, as a row has it. Operators can write any: `infinity` cannot be
/// subtracted from, and no lock is kept for longer than a week.
fn left(expires: &str) -> String {
    left_at(NOW, expires)
}

/// The same from another time than that of the look on.
pub(super) fn left_at(now: &str, expires: &str) -> String {
    format!(
        "greatest(0, ceil(extract(epoch FROM \
          greatest({now}, least({expires}, {now} + interval '8 days')) - {now}) * 1000))::int8"
    )
}

fn milliseconds(lease: Duration) -> u128 {
    lease.as_millis()
}

impl Of<'_> {
    /// Whether the row `server` says that locks can be granted: by this server, in no quarantine, and not too late.
    fn may_grant(&self, not_after: &str) -> String {
        let (identity, server) = (self.identity.sql(), RowKey::SERVER);
        format!(
            "server.key = '{server}'::uuid AND server.holder = {identity} \
             AND server.expires <= clock_timestamp() AND {MICROS} <= {not_after}::int8"
        )
    }

    /// Whether a writer that waits keeps readers out. Its place lasts no longer than the longest lease: one that does
    /// was taken before the clock of the server went back, and does not count.
    fn is_wanted(&self) -> String {
        format!(
            "((l.wanted_until > clock_timestamp() AND l.wanted_until <= clock_timestamp() + (1000::int8 + \
              (SELECT server.lease FROM {} AS server WHERE server.key = '{}'::uuid)) * interval '1 ms') IS TRUE)",
            self.table,
            RowKey::SERVER
        )
    }

    /// In how many milliseconds a reader can have the lock of a row: when the writer that holds it, or waits for it,
    /// has it no longer.
    fn left_for_readers(&self) -> String {
        format!(
            "greatest(CASE WHEN l.owner <> {READERS} AND l.expires > clock_timestamp() THEN {held} ELSE 0 END, \
              CASE WHEN {is_wanted} THEN {wanted} ELSE 0 END)",
            held = left("l.expires"),
            is_wanted = self.is_wanted(),
            wanted = left("l.wanted_until"),
        )
    }

    /// What is the same in each request: its number, which the answer repeats, and what the server is.
    pub(super) fn head(&self, [number]: [&str; 1]) -> String {
        let (table, identity, server) = (self.table, self.identity.sql(), RowKey::SERVER);
        format!(
            "SELECT {head}, {number}::int8, {MICROS}, \
             (SELECT CASE WHEN server.holder = {identity} \
              THEN {left} \
              ELSE -1 END FROM {table} AS server WHERE server.key = '{server}'::uuid)",
            head = kind::HEAD,
            left = left("server.expires"),
        )
    }
}
