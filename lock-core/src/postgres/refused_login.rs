//! Why a connection could not be made, each in a sentence that says what to do.
//!
//! The cause is read from the code of an error and the routine of the server that raised it, which are
//! the same in all languages.

use std::io::{self, ErrorKind};

use sqlx::Error;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgSslMode};

use super::connection_limits::{limit, names};
use super::errors::{is_fatal, pooler};
use super::{pooler_words, tls};
use crate::LockError;
use crate::server::worker::no_descriptor;

/// Why a role could not log in; `is_second` of the connection that a process needs while it connects.
pub(super) fn logging_in(error: Error, options: &PgConnectOptions, is_second: bool) -> LockError {
    let made = match &error {
        Error::Database(database) => match database.try_downcast_ref() {
            Some(said) => refused(&error, said, options, is_second),
            None => LockError::unavailable(REFUSED),
        },
        Error::Io(io) => not_reached(io, options),
        Error::Tls(error) => tls::refused(&**error),
        // What the driver says of an error of a server that it could not read.
        Error::Protocol(says) if says.contains("non-UTF-8 string for its error message") => {
            LockError::unavailable(
                "the server refused the connection, and its words cannot be read, since they are not \
                 in UTF-8; see its log, or set lc_messages = 'C' in postgresql.conf",
            )
        }
        // It speaks the protocol: a server says which kind of proof it wants.
        Error::Protocol(says) if says.contains("authentication m") => LockError::misconfigured(
            "the server wants a proof of the user that the driver cannot give (`gss`, `sspi` or `oauth` in \
             pg_hba.conf); have a line before that one, for this user, database and address, with \
             scram-sha-256 or `cert`",
        ),
        Error::Protocol(_) => LockError::misconfigured(
            "what listens there does not speak PostgreSQL's protocol; correct host and port",
        ),
        Error::Configuration(_) => LockError::misconfigured(
            "the client certificate is not usable; `sslcert` and `sslkey` are given together, as \
             files in PEM, the key without a password",
        ),
        Error::InvalidArgument(_) => {
            LockError::misconfigured("the connection string is not usable")
        }
        _ => LockError::unavailable("the connection to PostgreSQL could not be made"),
    };
    made.with_source(error)
}

const REFUSED: &str = "PostgreSQL refused the connection; the source of this error says why";

fn refused(
    error: &Error,
    said: &PgDatabaseError,
    options: &PgConnectOptions,
    is_second: bool,
) -> LockError {
    let (code, message) = (said.code(), said.message());
    if let Some(limit) = limit(said, Some(options), is_second) {
        return limit;
    }
    if let Some(refused) = pooler_words::refused(said) {
        return refused;
    }
    match code {
        "28000" if said.routine() == Some("ClientAuthentication") => {
            no_line(message.contains("client certificate"), options)
        }
        "28000" if said.routine() == Some("InitializeSessionUserId") => {
            let (_, role) = names(options);
            LockError::misconfigured(format!(
                "PostgreSQL refused the user: it has no role {role} that may log in; run `ALTER ROLE \
                 {role} LOGIN;` (a group role has NOLOGIN) or `CREATE ROLE {role} LOGIN;`, or correct the user"
            ))
        }
        // Methods with a password have a code of their own.
        "28000" if said.routine() == Some("auth_failed") => LockError::misconfigured(
            "PostgreSQL refused the user by a method of pg_hba.conf that asks for no password (`peer` and \
             `ident` compare it with the user of the operating system, `cert` with the certificate); \
             correct the user, or that line",
        ),
        "28P01" | "28000" => LockError::misconfigured(
            "PostgreSQL refused the user or its password; correct them in the connection string, or \
             let the user in (pg_hba.conf)",
        ),
        "3D000" => LockError::misconfigured(
            "the database does not exist on this server; create it, or correct its name in the \
             connection string",
        ),
        "42501" => {
            let (database, role) = names(options);
            LockError::misconfigured(format!(
                "the role may not connect to the database; run `GRANT CONNECT ON DATABASE {database} \
                 TO {role};`"
            ))
        }
        // In the start of a session; later ones are those of a statement of ours.
        "42704" | "22023" | "55P02" | "42601" if is_fatal(error) => LockError::misconfigured(
            "the server does not take the `options` of the connection string; correct the name or the \
             value of that setting",
        ),
        "26000" | "42P05" => pooler(),
        "57P03" => LockError::unavailable("the server is starting up or shutting down"),
        _ => LockError::unavailable(REFUSED),
    }
}

/// There is no line in `pg_hba.conf`, or one with more demands.
fn no_line(wants_certificate: bool, options: &PgConnectOptions) -> LockError {
    LockError::misconfigured(match options.get_ssl_mode() {
        _ if wants_certificate => {
            "the server wants a client certificate; set sslcert and sslkey to one of an authority that \
             it trusts, with sslmode=verify-full"
        }
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => {
            "the server has no line in pg_hba.conf that lets this user in from here over TLS, or only \
             one that wants a client certificate; add one, or set sslcert and sslkey"
        }
        _ => {
            "the server has no line in pg_hba.conf that lets this user in from here without TLS; add \
             one or, where it has one for TLS, set sslmode=verify-full and build with one of the \
             `tls-*` features"
        }
    })
}

fn not_reached(error: &io::Error, options: &PgConnectOptions) -> LockError {
    if let Some(descriptors) = no_descriptor(error) {
        return descriptors;
    }
    // Also what the server says of our certificate, after the handshake.
    if tls::is_trouble(error) {
        return tls::refused(error);
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => LockError::unavailable(
            "nothing listens at this host and port; start the server, or correct the connection \
             string",
        ),
        // A socket comes with its server.
        ErrorKind::NotFound if is_without_socket(options) => LockError::unavailable(
            "the socket of the connection string does not exist; start the server, or correct the \
             directory",
        ),
        // After the server was reached, and no retry changes it.
        ErrorKind::NotFound | ErrorKind::IsADirectory => LockError::misconfigured(
            "a file of `sslrootcert`, `sslcert` or `sslkey` does not exist; correct its path",
        ),
        ErrorKind::PermissionDenied => LockError::misconfigured(
            "the process may not read a file of `sslrootcert`, `sslcert` or `sslkey`, or may not use \
             the socket or the network; give it that right",
        ),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => LockError::unavailable(
            "what listens there closed the connection; is it a PostgreSQL server, and is it up?",
        ),
        // What the handshake says of a certificate.
        ErrorKind::InvalidData => match error.get_ref() {
            Some(error) => tls::refused(error),
            None => tls::refused(error),
        },
        _ => LockError::unavailable(
            "the server cannot be reached; check host, port and network (in a password, \
             `@`, `/`, `?` and `#` are written as %40, %2F, %3F and %23)",
        ),
    }
}

fn is_without_socket(options: &PgConnectOptions) -> bool {
    let port = options.get_port();
    let directory = options.get_socket();
    directory.is_some_and(|directory| !directory.join(format!(".s.PGSQL.{port}")).exists())
}
