//! Limits on connections: which one is reached, and what raises it.

use sqlx::postgres::{PgConnectOptions, PgDatabaseError};

use super::grants;
use crate::LockError;

/// A limit on connections, or on the clients of a pooler, is reached. By the routine that looked, since
/// all limits of a server have one code.
pub(super) fn limit(
    said: &PgDatabaseError,
    options: Option<&PgConnectOptions>,
    is_second: bool,
) -> Option<LockError> {
    let (code, message) = (said.code(), said.message());
    let is_from_pooler = code == "08P01";
    let says = |words: &str| is_from_pooler && message.contains(words);
    if says("no more connections allowed") {
        return Some(LockError::unavailable(
            "the pooler has as many clients as it may have; raise `max_client_conn` (or the limit that \
             the source of this error names) in pgbouncer.ini",
        ));
    }
    if says("query_wait_timeout") {
        return Some(LockError::unavailable(
            "the pooler had no session free for this role and database; raise `default_pool_size` (or \
             `pool_size`, `max_db_connections`, `max_user_connections`) in pgbouncer.ini",
        ));
    }
    // PgBouncer repeats the words of the server.
    let (database, role) = options.map_or_else(|| ("..".into(), "..".into()), names);
    let (whose, raise) = match said.routine() {
        Some("InitializeSessionUserId") if code == "53300" => role_limit(&role),
        None if says("too many connections for role") => role_limit(&role),
        Some("CheckMyDatabase") if code == "53300" => database_limit(&database),
        None if says("too many connections for database") => database_limit(&database),
        Some(_) if code == "53300" => server_limit(),
        None if says("sorry, too many clients") || says("connection slots are reserved") => {
            server_limit()
        }
        None if code == "53300" => (
            "no connection is left on the server, for the database or for the role",
            "raise max_connections, or the CONNECTION LIMIT of the database or the role".into(),
        ),
        _ => return None,
    };
    let second = match is_second {
        true => " (a process needs a second connection for the moments in which it connects)",
        false => "",
    };
    Some(LockError::unavailable(format!(
        "{whose}{second}; use fewer, or {raise}"
    )))
}

fn role_limit(role: &str) -> (&'static str, String) {
    let raise = format!(
        "run `ALTER ROLE {role} CONNECTION LIMIT -1;`, which is no limit, or give it a greater one"
    );
    (
        "the role has as many connections as its limit allows",
        raise,
    )
}

fn database_limit(database: &str) -> (&'static str, String) {
    let raise = format!(
        "run `ALTER DATABASE {database} CONNECTION LIMIT -1;`, which is no limit, or give it a greater one"
    );
    (
        "the database has as many connections as its limit allows",
        raise,
    )
}

fn server_limit() -> (&'static str, String) {
    // What can be pasted as it is could lower it.
    let raise = "see `SHOW max_connections;`, run `ALTER SYSTEM SET max_connections = <more>;` with a greater number, and \
         restart the server";
    ("the server has no connection left", raise.into())
}

/// Of the database and the role, as SQL takes them.
pub(super) fn names(options: &PgConnectOptions) -> (String, String) {
    let role = options.get_username();
    let database = options.get_database().unwrap_or(role);
    (grants::quoted(database), grants::quoted(role))
}
