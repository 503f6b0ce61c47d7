//! Which server a connection string leads to, and whether that proves who it is.

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::server::exposed::warn_unless_local;

/// The server and the database, for a log.
pub(super) fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_default();
    let (host, port) = (options.get_host(), options.get_port());
    match options.get_socket() {
        Some(socket) => format!("{}:{port}/{database}", socket.display()),
        None if host.contains(':') => format!("[{host}]:{port}/{database}"),
        None => format!("{host}:{port}/{database}"),
    }
}

/// A warning where the server is on another machine and its certificate is not looked at.
pub(super) fn warn_unless_verified(options: &PgConnectOptions) {
    let mode = match options.get_ssl_mode() {
        PgSslMode::VerifyCa | PgSslMode::VerifyFull => return,
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
    };
    if options.get_socket().is_none() {
        warn_unless_local(
            options.get_host(),
            &format!("PostgreSQL at {}", place(options)),
            &format!("sslmode={mode}"),
            "set sslmode=verify-full and, where the authority is not one that everybody trusts, \
             sslrootcert=FILE",
        );
    }
}
