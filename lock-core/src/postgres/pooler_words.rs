//! Why a pooler refuses a client, or one of its statements. Poolers have one code for everything, and
//! their words are always English; limits on connections are [elsewhere](super::connection_limits).

use sqlx::postgres::PgDatabaseError;

use crate::LockError;

/// What is wrong, by what PgBouncer says of it; `None` for what it does not say.
pub(super) fn refused(said: &PgDatabaseError) -> Option<LockError> {
    if said.routine().is_some() {
        // A server has the routine that raised it.
        return None;
    }
    refusal(said.message())
}

fn refusal(message: &str) -> Option<LockError> {
    let says = |words: &str| message.contains(words);
    let misconfigured = |detail| Some(LockError::misconfigured(detail));
    // PgBouncer's default; the driver always sends it.
    if says("startup parameter") && says("extra_float_digits") {
        return misconfigured(
            "the pooler does not know a startup parameter of the driver; set \
             `ignore_startup_parameters = extra_float_digits` in pgbouncer.ini",
        );
    }
    if says("startup parameter") {
        return misconfigured(
            "a proxy refuses a startup parameter of the connection string; remove `options` from it",
        );
    }
    if says("PQexec disallowed") {
        return misconfigured(
            "the pooler takes no simple queries, with which a session is set up; set `disable_pqexec = 0` \
             in pgbouncer.ini, or connect to the server directly",
        );
    }
    if says("statement pooling mode") {
        return misconfigured(
            "the pooler gives each statement another session (statement pooling), where session locks do not exclude other clients; connect to the server directly, or have the pooler pool sessions",
        );
    }
    if says("no such database") || says("is disabled") {
        return misconfigured(
            "the pooler has no such database, or has disabled it; correct its name in the connection \
             string, or add it to [databases] in pgbouncer.ini",
        );
    }
    if says("no such user") {
        return misconfigured(
            "the pooler knows no such user; correct it in the connection string, or add it to the \
             `auth_file` (or `auth_query`) of pgbouncer.ini",
        );
    }
    if says("SSL required") {
        return misconfigured(
            "the pooler wants TLS; set sslmode=verify-full, and build with one of the `tls-*` features",
        );
    }
    let is_cut_off = ["server login", "cannot connect", "server down"];
    is_cut_off.into_iter().any(says).then(|| {
        LockError::unavailable(
            "the pooler has no connection to its server; see its log, and whether the server is up and \
             lets the pooler in",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbouncer_says_names_the_setting() {
        for (says, told) in [
            (
                "unsupported startup parameter: extra_float_digits",
                "ignore_startup_parameters",
            ),
            (
                "unsupported startup parameter in options: x",
                "remove `options`",
            ),
            ("PQexec disallowed", "disable_pqexec = 0"),
            (
                "transaction blocks not allowed in statement pooling mode",
                "pool sessions",
            ),
            ("no such database: shop", "[databases]"),
            ("database \"shop\" is disabled", "[databases]"),
            ("no such user: app", "auth_file"),
            ("SSL required", "sslmode"),
            (
                "server login has been failing, try again later (server_login_retry)",
                "no connection to its server",
            ),
            (
                "pgbouncer cannot connect to server",
                "no connection to its server",
            ),
            (
                "client_login_timeout (server down)",
                "no connection to its server",
            ),
        ] {
            let error = refusal(says).unwrap().to_string();
            assert!(error.contains(told), "{says}: {error}");
        }
        assert!(refusal("password authentication failed").is_none());
    }
}
