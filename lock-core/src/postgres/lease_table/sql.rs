//! What one request does in the server.
//!
//! The statements of a request are one transaction, and each looks at what is committed when it begins. Rows
//! are locked in the order of their keys where a statement waits for them, so that two requests do not wait for
//! each other; what is to be taken is never waited for. Names mean what PostgreSQL means by them.
//!
//! `clock_timestamp()` and not `now()`, which is when the transaction began: a statement that has waited sees
//! what the time is then.

use std::time::Duration;

use super::identity::Identity;
use super::key::RowKey;
use super::literal::Text;
use super::names::CHANNEL;
use crate::instance::LONGEST;

/// By how much the clocks of two servers differ at most, in microseconds: 10 minutes.
const AHEAD: i64 = 600_000_000;

/// How many grants a server that takes over may lack of one lock: 5 seconds of as many as one server makes.
const LACKED: i64 = 100_000;

/// How long a row that no client holds stays, which is longer than any statement is under way.
const KEPT: &str = "interval '1 hour'";

/// Whose a lock is that was released and is kept until it expires: no acquire has this owner.
pub(super) const NO_OWNER: &str = "'00000000-0000-0000-0000-000000000000'";

/// What follows the key in the notification of such a release.
pub(super) const KEPT_ON: &str = " kept";

/// How many rows one sweep removes at most.
const SWEPT: usize = 1_000;

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
    /// Place, and the token, or how many milliseconds are left to the holder.
    pub(crate) const ACQUIRED: i32 = 3;
    /// Place, and the token, of those alone that are held.
    pub(crate) const ISSUED: i32 = 4;
    /// Place, of those alone that are free, or kept: then in how many milliseconds they open.
    pub(crate) const FREE: i32 = 5;
    /// Position of a key of advisory locks that a session holds.
    pub(crate) const MARKED: i32 = 6;
    /// What was asked for was notified.
    pub(crate) const NOTIFIED: i32 = 7;
    /// Place, for how many microseconds the lock is held, if that can be, in how many milliseconds it opens, if it was
    /// released and is kept, and the instance in a fifth column, of those alone that are held or kept.
    pub(crate) const HELD_BY: i32 = 8;
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
}

/// The table, as statements name it, and how its server is told from others.
#[derive(Clone, Debug)]
pub(super) struct Of<'a> {
    /// Schema and table, quoted.
    pub(super) table: &'a str,
    pub(super) identity: Identity,
}

/// A request begins: as all of them are, whatever the role and the database have set. It waits for no
/// standby, and for others no longer than a moment.
const BEGIN: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; \
     SET LOCAL search_path = pg_catalog, pg_temp; \
     SET LOCAL synchronous_commit = local; \
     SET LOCAL lock_timeout = 500; ";

/// The time, in microseconds since 1970.
const MICROS: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::int8";

/// How many milliseconds are left until this time, as a row has it. Operators can write any: `infinity` cannot be
/// subtracted from, and no lock is kept for as long as this.
fn left(expires: &str) -> String {
    format!(
        "greatest(0, ceil(extract(epoch FROM \
          greatest(clock_timestamp(), least({expires}, clock_timestamp() + interval '8 days')) \
          - clock_timestamp()) * 1000))::int8"
    )
}

fn milliseconds(lease: Duration) -> u128 {
    lease.as_millis()
}

impl Of<'_> {
    /// What is the same in each request: its number, which the answer repeats, and what the server is, after
    /// it was noted if there is something to note.
    pub(super) fn begin(&self, number: i64, note: Option<(Duration, bool)>) -> String {
        let (table, identity, server) = (self.table, self.identity.sql(), RowKey::SERVER);
        let note = note.map_or_else(String::new, |(lease, has_jumped)| {
            self.quarantine(lease, has_jumped) + "; "
        });
        format!(
            "{BEGIN}{note}SELECT {head}, {number}::int8, {MICROS}, \
             (SELECT CASE WHEN server.holder = {identity} \
              THEN {left} \
              ELSE -1 END FROM {table} AS server WHERE server.key = '{server}'::uuid)",
            head = kind::HEAD,
            left = left("server.expires"),
        )
    }

    /// Releases the locks of these, each `(place, 'key'::uuid, 'owner'::uuid, kept::int4)`. A row that has expired and
    /// was not taken is free after it as well, but was not held; one that was held and is to be kept for so many
    /// milliseconds has [`NO_OWNER`] until then. Processes that listen are notified of those that they wait for, unless
    /// they `are_deaf`.
    pub(super) fn release(&self, rows: &str, are_deaf: bool) -> String {
        let table = self.table;
        // Together with the commit of this transaction. `void` has a value.
        let notified = match are_deaf {
            true => "NULL::int8".to_owned(),
            false => format!(
                "CASE WHEN freed.awaited \
                 THEN (pg_notify('{CHANNEL}', freed.key::text || CASE WHEN freed.kept IS NULL THEN '' ELSE '{KEPT_ON}' END) \
                 IS NOT NULL)::int4::int8 END"
            ),
        };
        format!(
            "; WITH asked(place, key, owner, kept) AS (VALUES {rows}), \
             own AS (SELECT l.key, a.place, l.expires > clock_timestamp() AS was_held, l.awaited, \
               CASE WHEN l.expires > clock_timestamp() THEN a.kept END AS kept \
              FROM asked AS a JOIN {table} AS l ON l.key = a.key WHERE l.owner = a.owner \
              ORDER BY l.key FOR NO KEY UPDATE OF l), \
             freed AS (UPDATE {table} AS l SET awaited = false, lease = coalesce(own.kept, l.lease), \
               owner = CASE WHEN own.kept IS NOT NULL THEN {NO_OWNER}::uuid END, \
               expires = clock_timestamp() + coalesce(own.kept, 0) * interval '1 ms' \
              FROM own WHERE l.key = own.key RETURNING l.key, own.place, own.was_held, own.awaited, own.kept) \
             SELECT {kind}, a.place, (CASE WHEN freed.place IS NOT NULL THEN freed.was_held::int4 \
              WHEN l.owner IS NOT NULL AND l.owner NOT IN (a.owner, {NO_OWNER}::uuid) \
               AND l.expires > clock_timestamp() THEN 2 \
              ELSE 0 END)::int8, {notified} \
             FROM asked AS a LEFT JOIN freed ON freed.place = a.place LEFT JOIN {table} AS l ON l.key = a.key",
            kind = kind::RELEASED,
        )
    }

    /// Renews the leases of these, each `(place, 'key'::uuid, 'owner'::uuid, kept::int4)`: what has expired is not
    /// revived, and what is to be kept for longer than a lease is not shortened.
    pub(super) fn renew(&self, rows: &str, lease: Lease<'_>) -> String {
        let Lease {
            length, not_after, ..
        } = lease;
        let (table, lease) = (self.table, milliseconds(length));
        format!(
            "; WITH asked(place, key, owner, kept) AS (VALUES {rows}), \
             own AS (SELECT l.key, a.place, greatest({lease}, a.kept) AS lease \
              FROM asked AS a JOIN {table} AS l ON l.key = a.key \
              WHERE l.owner = a.owner AND l.expires > clock_timestamp() AND {MICROS} <= {not_after} \
              ORDER BY l.key FOR NO KEY UPDATE OF l), \
             renewed AS (UPDATE {table} AS l SET lease = own.lease, \
              expires = clock_timestamp() + own.lease * interval '1 ms' \
              FROM own WHERE l.key = own.key RETURNING own.place) \
             SELECT {kind}, place, NULL::int8, NULL::int8 FROM renewed",
            kind = kind::RENEWED,
        )
    }

    /// Acquires those that are free, up to the limit: each of these is `(place, 'key'::uuid, 'owner'::uuid,
    /// 'namespace', 'name', kept::int4)`, held for a lease, or so many milliseconds where these are more. What the same
    /// owner has been granted already is granted to it again.
    ///
    /// A row is passed over that another transaction has locked: a client that takes it now, or a transaction
    /// of a user that is [fenced](super::fence()) by it. Rows that are missing are made in the order of their
    /// keys, so that two requests do not wait for each other; a single one is made in the order of the request, in which
    /// two clients begin in different places. A row that expires later than a lease from now was written before the clock went back: it
    /// expires a lease from now.
    ///
    /// With `listens` the release of what is refused here is notified. A row that another transaction has locked
    /// meanwhile is not noted, nor one that was released between the look and the note: such a lock is polled.
    pub(super) fn acquire(
        &self,
        rows: &str,
        limit: Option<usize>,
        Lease {
            length,
            not_after,
            holder,
        }: Lease<'_>,
        listens: bool,
    ) -> String {
        const IS_FREE: &str =
            "(l.owner IS NULL OR l.expires <= clock_timestamp() OR l.owner = a.owner)";
        const IS_ANOTHERS: &str = "l.owner <> a.owner AND l.expires > clock_timestamp()";
        const IS_TOO_LATE: &str =
            "l.expires > clock_timestamp() + (l.lease + 1000::int8) * interval '1 ms'";
        const IS_ITS_OWN: &str = "l.owner = a.owner AND l.expires > clock_timestamp()";
        let (table, identity, server) = (self.table, self.identity.sql(), RowKey::SERVER);
        let (lease, holder) = (milliseconds(length), Text(holder));
        // Not a row that is brought back: a statement changes a row once.
        let noted = match listens {
            false => String::new(),
            true => format!(
                "wanted AS MATERIALIZED (SELECT l.key FROM asked AS a JOIN {table} AS l ON l.key = a.key \
                  CROSS JOIN server WHERE {IS_ANOTHERS} AND NOT {IS_TOO_LATE} AND NOT l.awaited \
                  FOR NO KEY UPDATE OF l SKIP LOCKED), \
                 noted AS (UPDATE {table} AS l SET awaited = true FROM wanted WHERE l.key = wanted.key), "
            ),
        };
        let made_by = if limit == Some(1) { "a.place" } else { "a.key" };
        let (of_free, of_made) = match limit {
            None => (String::new(), String::new()),
            Some(limit) => (
                format!("LIMIT {limit}"),
                format!("LIMIT greatest({limit} - (SELECT count(*) FROM free), 0)"),
            ),
        };
        format!(
            "; WITH asked(place, key, owner, namespace, name, kept) AS (VALUES {rows}), \
             server AS MATERIALIZED (SELECT server.token FROM {table} AS server \
              WHERE server.key = '{server}'::uuid AND server.holder = {identity} \
              AND server.expires <= clock_timestamp() AND {MICROS} <= {not_after}), \
             free AS MATERIALIZED (SELECT l.key, a.place FROM asked AS a JOIN {table} AS l ON l.key = a.key \
              CROSS JOIN server WHERE {IS_FREE} {of_free} FOR UPDATE OF l SKIP LOCKED), \
             taken AS (UPDATE {table} AS l SET owner = a.owner, holder = {holder}, \
              lease = greatest({lease}, a.kept), \
              expires = clock_timestamp() + greatest({lease}, a.kept) * interval '1 ms', \
              acquired = CASE WHEN {IS_ITS_OWN} THEN l.acquired ELSE clock_timestamp() END, \
              token = CASE WHEN {IS_ITS_OWN} THEN l.token \
               ELSE greatest(l.token + 1, server.token + 1, {MICROS}) END \
              FROM free AS f JOIN asked AS a ON a.place = f.place CROSS JOIN server \
              WHERE l.key = f.key AND {IS_FREE} RETURNING a.place, l.token), \
             made AS (INSERT INTO {table} AS l (key, namespace, name, owner, holder, lease, expires, acquired, token) \
              SELECT a.key, a.namespace, a.name, a.owner, {holder}, greatest({lease}, a.kept), \
               clock_timestamp() + greatest({lease}, a.kept) * interval '1 ms', clock_timestamp(), \
               greatest(server.token + 1, {MICROS}) \
              FROM asked AS a CROSS JOIN server WHERE NOT EXISTS (SELECT FROM {table} AS l WHERE l.key = a.key) \
              ORDER BY {made_by} {of_made} ON CONFLICT (key) DO NOTHING RETURNING l.key, l.owner, l.token), \
             {noted}\
             late AS MATERIALIZED (SELECT l.key FROM asked AS a JOIN {table} AS l ON l.key = a.key \
              WHERE l.owner <> a.owner AND {IS_TOO_LATE} FOR NO KEY UPDATE OF l SKIP LOCKED), \
             brought_back AS (UPDATE {table} AS l SET expires = clock_timestamp() + l.lease * interval '1 ms' \
              FROM late WHERE l.key = late.key AND {IS_TOO_LATE}) \
             SELECT {kind}, a.place, coalesce(taken.token, made.token), \
              CASE WHEN l.owner IS NOT NULL THEN {left} END \
             FROM asked AS a LEFT JOIN taken ON taken.place = a.place \
             LEFT JOIN made ON made.key = a.key AND made.owner = a.owner \
             LEFT JOIN {table} AS l ON l.key = a.key",
            kind = kind::ACQUIRED,
            left = left("l.expires"),
        )
    }

    /// Issues another token for each of these, `(place, 'key'::uuid, 'owner'::uuid, kept::int4)`, that is held: greater
    /// than all that the lock has had.
    pub(super) fn issue(&self, rows: &str, not_after: i64) -> String {
        let (table, identity, server) = (self.table, self.identity.sql(), RowKey::SERVER);
        format!(
            "; WITH asked(place, key, owner, kept) AS (VALUES {rows}), \
             server AS MATERIALIZED (SELECT server.token FROM {table} AS server \
              WHERE server.key = '{server}'::uuid AND server.holder = {identity}), \
             own AS (SELECT l.key, a.place FROM asked AS a JOIN {table} AS l ON l.key = a.key CROSS JOIN server \
              WHERE l.owner = a.owner AND l.expires > clock_timestamp() AND {MICROS} <= {not_after} \
              ORDER BY l.key FOR NO KEY UPDATE OF l), \
             issued AS (UPDATE {table} AS l SET token = greatest(l.token + 1, server.token + 1, {MICROS}) \
              FROM own CROSS JOIN server WHERE l.key = own.key RETURNING own.place, l.token) \
             SELECT {kind}, place, token, NULL::int8 FROM issued",
            kind = kind::ISSUED,
        )
    }

    /// Notes that this is another server than the table was on, or that its clock has jumped: no lock is granted
    /// until all that were granted before have ended. `lease` is that of the client; the row knows a longer
    /// one. Nothing is noted twice for one server, and what was noted ends though the clock goes back.
    ///
    /// Tokens go on where those of another server can have come to, although its clock may have been ahead and
    /// the last grants may be lacking here.
    fn quarantine(&self, lease: Duration, has_jumped: bool) -> String {
        let (table, identity, server) = (self.table, self.identity.sql(), RowKey::SERVER);
        let whole = format!(
            "greatest({}, server.lease) * interval '1 ms'",
            milliseconds(lease)
        );
        format!(
            "UPDATE {table} AS server SET holder = {identity}, expires = clock_timestamp() + {whole}, \
              token = CASE server.holder WHEN {identity} THEN server.token ELSE greatest({MICROS} + {AHEAD}, \
               (SELECT max(l.token) FROM {table} AS l) + {LACKED}) END \
             WHERE server.key = '{server}'::uuid AND (server.holder <> {identity} OR {has_jumped} \
              OR server.expires > clock_timestamp() + {whole} + interval '1 s')"
        )
    }

    /// Says that the locks of a namespace are in this table, under a key that this process alone has.
    pub(super) fn mark(
        &self,
        key: RowKey,
        namespace: &str,
        holder: &str,
        lease: Duration,
    ) -> String {
        let (table, lease) = (self.table, milliseconds(lease));
        let (namespace, holder) = (Text(namespace), Text(holder));
        format!(
            "; INSERT INTO {table} AS l (key, namespace, name, holder, lease, expires, acquired, token) \
             VALUES ('{key}'::uuid, {namespace}, 'mark', {holder}, {lease}, \
              clock_timestamp() + interval '{lease} ms', clock_timestamp(), 0) \
             ON CONFLICT (key) DO UPDATE SET expires = excluded.expires",
        )
    }

    /// Looks for sessions that hold one of these keys of advisory locks, each `(key, position)`: marks of other
    /// providers. `pg_locks` shows what is held now, by uncommitted transactions as well.
    pub(super) fn marks_of_others(rows: &str) -> String {
        format!(
            "; SELECT {kind}, k.position, NULL::int8, NULL::int8 FROM (VALUES {rows}) AS k(key, position) \
             JOIN pg_locks AS l ON ((l.classid::int8 << 32) | l.objid::int8) = k.key \
             WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.mode = 'ShareLock' \
             AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()) LIMIT 1",
            kind = kind::MARKED,
        )
    }

    /// Notifies those who listen to this channel.
    pub(super) fn notify(channel: &str) -> String {
        format!(
            "; SELECT {kind}, (pg_notify({channel}, '') IS NOT NULL)::int4, NULL::int8, NULL::int8",
            kind = kind::NOTIFIED,
            channel = Text(channel),
        )
    }

    /// Withdraws a mark.
    pub(super) fn unmark(&self, key: RowKey) -> String {
        format!("; DELETE FROM {} WHERE key = '{key}'::uuid", self.table)
    }

    /// Looks which of these, `(place, 'key'::uuid)`, are free, or will be when they were kept for long enough, and locks
    /// none.
    pub(super) fn look(&self, rows: &str) -> String {
        let table = self.table;
        format!(
            "; WITH asked(place, key) AS (VALUES {rows}) \
             SELECT {kind}, a.place, CASE WHEN l.expires > clock_timestamp() AND l.owner IS NOT NULL THEN {left} END, \
              NULL::int8 \
             FROM asked AS a LEFT JOIN {table} AS l ON l.key = a.key \
             WHERE l.owner IS NULL OR l.owner = {NO_OWNER}::uuid OR l.expires <= clock_timestamp()",
            kind = kind::FREE,
            left = left("l.expires"),
        )
    }

    /// Looks who holds these, `(place, 'key'::uuid)`. Any role with rights on the table can have written any
    /// text: no more of it is read than an instance can have.
    pub(super) fn who_holds(&self, rows: &str) -> String {
        let table = self.table;
        format!(
            "; WITH asked(place, key) AS (VALUES {rows}) \
             SELECT {kind}, a.place, \
              CASE WHEN isfinite(l.acquired) \
              THEN (extract(epoch FROM clock_timestamp() - l.acquired) * 1000000)::int8 END, \
              CASE WHEN l.owner = {NO_OWNER}::uuid THEN {left} END, left(l.holder, {read}) \
             FROM asked AS a JOIN {table} AS l ON l.key = a.key \
             WHERE l.owner IS NOT NULL AND l.expires > clock_timestamp()",
            kind = kind::HELD_BY,
            left = left("l.expires"),
            // One more: what is longer is no instance.
            read = LONGEST + 1,
        )
    }

    /// Notes which server this is, if the table is new and no client has, and the lease of a client, if it is
    /// the longest: as long is waited where locks may be forgotten. Gives the server that is noted.
    pub(super) fn introduce(&self, lease: Duration) -> String {
        let (table, identity, server) = (self.table, self.identity.sql(), RowKey::SERVER);
        let lease = milliseconds(lease);
        format!(
            "{BEGIN}UPDATE {table} AS server SET lease = greatest(server.lease, {lease}), \
              holder = CASE server.holder WHEN '' THEN {identity} ELSE server.holder END \
             WHERE server.key = '{server}'::uuid AND (server.holder = '' OR server.lease < {lease}); \
             SELECT server.holder FROM {table} AS server WHERE server.key = '{server}'::uuid"
        )
    }

    /// Removes rows that have been free for long. What tokens they had the row of the server has then, from
    /// where those of a new row go on.
    pub(super) fn sweep(&self) -> String {
        let (table, server) = (self.table, RowKey::SERVER);
        format!(
            "; WITH old AS MATERIALIZED (SELECT l.key FROM {table} AS l WHERE l.key <> '{server}'::uuid \
              AND l.expires < clock_timestamp() - {KEPT} LIMIT {SWEPT} FOR UPDATE OF l SKIP LOCKED), \
             gone AS (DELETE FROM {table} AS l USING old WHERE l.key = old.key \
              AND l.expires < clock_timestamp() - {KEPT} RETURNING l.token) \
             UPDATE {table} SET token = greatest(token, (SELECT max(gone.token) FROM gone)) \
             WHERE key = '{server}'::uuid AND EXISTS (SELECT FROM gone)"
        )
    }
}
