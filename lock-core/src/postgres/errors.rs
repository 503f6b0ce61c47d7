//! What the driver's errors mean here, each in a sentence that says what to do.

use std::error::Error as _;
use std::fmt;

use sqlx::Error;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::connection_limits::limit;
use super::sqlstate::sqlstate;
use super::{grants, pooler_words};
use crate::LockError;
use crate::settings::ELSEWHERE;

/// The limits that a full lock table is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_locks_per_transaction: i64,
    pub(super) max_connections: i64,
}

const QUEUE_FULL: &str = "the notification queue of the server is full, since a session that LISTENs \
     is in an open transaction; end that transaction (see pg_notification_queue_usage() and \
     pg_stat_activity)";

/// Whether the session is over, and with it all its locks.
pub(super) fn is_fatal(error: &Error) -> bool {
    match error {
        Error::Database(error) => error
            .try_downcast_ref::<PgDatabaseError>()
            .is_none_or(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)),
        // An answer that cannot be read is not that of the session as we know it.
        _ => true,
    }
}

/// Whether the server did not take a notification, because the commit of another session stands before it.
pub(super) fn is_notification_late(error: &Error) -> bool {
    sqlstate(error).as_deref() == Some("55P03")
}

/// Whether it did not, because its queue of them is full. No other statement of ours has this error.
pub(super) fn is_queue_full(error: &Error) -> bool {
    sqlstate(error).as_deref() == Some("54000")
}

/// Whether it did not, for either reason.
pub(super) fn is_notification_refused(error: &Error) -> bool {
    is_notification_late(error) || is_queue_full(error)
}

/// A statement failed in a session that lives.
pub(super) fn statement(error: Error, limits: Limits) -> LockError {
    let code = sqlstate(&error);
    let detail = match code.as_deref() {
        Some("53200") => format!(
            "the lock table of the server is full; raise max_locks_per_transaction (now {}) or \
             max_connections (now {}), or hold fewer locks",
            limits.max_locks_per_transaction, limits.max_connections
        ),
        Some("55P03") => "the server did not take the notification in time".into(),
        Some("54000") => QUEUE_FULL.into(),
        Some("57014") => "the statement was cancelled on the server".into(),
        Some("42501") => return grants::refused(error),
        _ => "PostgreSQL refused the statement".into(),
    };
    LockError::unavailable(detail).with_source(error)
}

/// A look at who holds what failed in a session that lives.
pub(super) fn look(error: Error, limits: Limits) -> LockError {
    let said = match sqlstate(&error).as_deref() {
        Some("55P03") => {
            "another session has locked what says who holds what (`pg_stat_activity` and what it reads): ask again when \
             its transaction has ended"
        }
        // Also an administrator cancels a statement.
        Some("57014") => {
            "the server took longer to say who holds what than a look may keep the session from its locks, or an \
             administrator cancelled that; ask again when the server has less to do"
        }
        _ => return statement(error, limits),
    };
    LockError::unavailable(said).with_source(error)
}

/// The role may not do what locks in a table need, which no retry mends.
pub(super) fn lacks_right() -> LockError {
    LockError::misconfigured(
        "this role lacks a right that locks in a table need, which the source of this error names; have a role that \
         may grant it do so",
    )
}

/// Whether it comes from a right that is missing.
pub(super) fn is_right(error: &LockError) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    source.and_then(sqlstate).as_deref() == Some("42501")
}

/// The source of the error of a login that was not made, since one with the same user and password was
/// refused a moment ago.
#[derive(Debug)]
pub(super) struct RefusedBefore;

impl fmt::Display for RefusedBefore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the server has refused them before, and is not shown them again for some seconds",
        )
    }
}

impl std::error::Error for RefusedBefore {}

/// Whether the server does not let in this user with this password.
pub(super) fn is_login_refused(error: &LockError) -> bool {
    let Some(source) = error.source() else {
        return false;
    };
    let code = source.downcast_ref().and_then(sqlstate);
    source.is::<RefusedBefore>() || matches!(code.as_deref(), Some("28P01" | "28000"))
}

/// A step failed on a connection that was made. That it speaks PostgreSQL's protocol is known by then:
/// answers that do not fit are those to another client.
pub(super) fn setting_up(error: Error) -> LockError {
    let made = match &error {
        Error::Database(database) => match database.code().as_deref() {
            Some("42501") => return grants::refused(error),
            // Prepared statements that are not where they were made, or are there already.
            Some("26000" | "42P05") => pooler(),
            Some("57P03") => LockError::unavailable("the server is starting up or shutting down"),
            Some("57014") => LockError::unavailable(
                "a statement that sets the session up was cancelled on the server, by an administrator or \
                 by a `statement_timeout` of the role, the database or the server that is shorter than \
                 that takes; give the role a longer one (`ALTER ROLE app SET statement_timeout = '30s';`, for the role in place of \
                 `app`)",
            ),
            Some(code) if code.starts_with("0A") || code == "42883" => look_alike(),
            // A pooler looks for a session when the first statement comes.
            _ => (database.try_downcast_ref())
                .and_then(|said| limit(said, None, false).or_else(|| pooler_words::refused(said)))
                .unwrap_or_else(|| {
                    LockError::unavailable(
                        "PostgreSQL refused a statement that sets the session up; the source of this \
                         error says why",
                    )
                }),
        },
        Error::Protocol(_) => pooler(),
        _ => LockError::unavailable(
            "the server, or a pooler in front of it, closed the connection while it was set up; its log \
             says why",
        ),
    };
    made.with_source(error)
}

/// Notifications of others hold up ours.
pub(super) fn notifications_held_up() -> LockError {
    LockError::unavailable(
        "the server takes no notifications now, since the commit of another session that notifies \
         hangs; is a synchronous standby gone?",
    )
}

/// The queue of notifications is full.
pub(super) fn queue_full() -> LockError {
    LockError::unavailable(QUEUE_FULL)
}

/// A key of ours is another's.
pub(super) fn key_taken() -> LockError {
    LockError::unavailable(
        "another session holds the key of our lease alone, which nothing of ours does: a role of this \
         database keeps these locks from working; find it in pg_locks, or give the locks a database of \
         their own",
    )
}

/// The thread of a session panicked.
pub(super) fn panicked() -> LockError {
    LockError::unavailable(
        "a panic ended the connection to PostgreSQL, which is made anew; its message is on standard \
         error. Is what listens there a PostgreSQL server?",
    )
}

pub(super) fn standby() -> LockError {
    LockError::misconfigured(
        "this server is a standby, whose advisory locks do not exclude clients of the primary; connect to the primary",
    )
}

pub(super) fn too_old(version: i32) -> LockError {
    LockError::misconfigured(format!(
        "the server is PostgreSQL {}.{}; use 14 or newer, which ends sessions that went silent",
        version / 10_000,
        version % 10_000
    ))
    .with_advice(ELSEWHERE)
}

pub(super) fn pooler() -> LockError {
    LockError::misconfigured(
        "the connection goes through a proxy that shares sessions between clients (transaction pooling), where session \
         locks do not exclude other clients",
    )
    .with_advice(IN_A_TABLE)
    .with_advice(
        "give the address of the server itself (poolers often differ by `-pooler` in the host, or by port 6543), or have \
         the pooler pool sessions",
    )
    .with_advice(ELSEWHERE)
}

/// For locks that are in the database, and not for those of a fleet that locks elsewhere.
const IN_A_TABLE: &str = "keep the locks in a table, which works behind such a proxy (LOCK_PROVIDER=postgres-table, \
     `postgres::LeaseTable`)";

/// The same of a database that does not hold the locks, which are to stay where they are.
pub(super) fn of_companion(error: LockError) -> LockError {
    error.without_advice(IN_A_TABLE).without_advice(ELSEWHERE)
}

pub(super) fn several_servers() -> LockError {
    LockError::misconfigured(
        "the address leads to several servers, now to one and now to another, each of which has locks \
         of its own; have the proxy or the name in front of them lead to one primary alone",
    )
    .with_source(SeveralServers)
}

/// Why the error is that one.
#[derive(Debug)]
struct SeveralServers;

impl fmt::Display for SeveralServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("two connections came to two servers")
    }
}

impl std::error::Error for SeveralServers {}

/// Whether it is [that](several_servers).
pub(super) fn is_several_servers(error: &LockError) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(<dyn std::error::Error>::is::<SeveralServers>)
}

pub(super) fn pgpool() -> LockError {
    LockError::misconfigured(
        "Pgpool-II is in front of the servers, and sends some statements to one of them and some to \
         another, or to all, where session locks do not exclude other clients; connect to the primary directly, or through \
         a Pgpool-II that has the primary alone",
    )
}

/// The address leads to another server than before.
pub(super) fn elsewhere() -> LockError {
    LockError::unavailable(
        "the address leads to another database system than before, whose locks do not exclude those of \
         processes on the former one; where both run, have it lead to one of them",
    )
}

pub(super) fn no_reset() -> LockError {
    LockError::misconfigured(
        "the pooler gives sessions to other clients as they were left, with the locks of a process \
         that has died; set `server_reset_query = DISCARD ALL` in pgbouncer.ini (or what your pooler \
         calls it), or connect to the server directly",
    )
    .with_advice(ELSEWHERE)
}

pub(super) fn look_alike() -> LockError {
    LockError::misconfigured(
        "the advisory locks of this server lock nothing (two sessions were granted the same one); \
         use a PostgreSQL server",
    )
    .with_advice(ELSEWHERE)
}

pub(super) fn setting_refused(name: &str) -> LockError {
    LockError::misconfigured(format!(
        "the server or a proxy does not keep the setting {name} of our session; connect to the \
         server directly"
    ))
}

pub(super) fn disconnected() -> LockError {
    LockError::unavailable("the connection to PostgreSQL was lost")
}

pub(super) fn full(cap: usize, held: usize) -> LockError {
    LockError::unavailable(format!(
        "this process holds {held} locks, and its limit is {cap}: a quarter of the server's lock \
         table unless configured; raise max_locks_per_transaction on the server, or the limit"
    ))
}

pub(super) fn no_readers() -> LockError {
    LockError::misconfigured(
        "the locks of `KeyScheme::Medallion` have no readers here; take the lock exclusively, or use the default keys",
    )
}

pub(super) fn not_ours() -> LockError {
    LockError::lost("this session no longer holds the lock")
}
