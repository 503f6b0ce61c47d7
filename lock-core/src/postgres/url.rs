//! Connection strings. The driver ignores options that it does not know, and logs their values; here
//! each is taken, or changes nothing, which is logged by its name, or is an error.

use std::borrow::Cow;
use std::net::IpAddr;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use url::Url;

use super::place::warn_unless_verified;
use super::trust::Trust;
use super::url_forms::{SEVERAL_HOSTS, other_form};
use crate::server::hostless::without_host;
use crate::server::option::{nearest, unknown};
use crate::{LockError, plain_text};

/// What the driver does.
const TAKEN: [&str; 16] = [
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// Options of libpq and of other drivers that change nothing here. Sessions have the name, the bounds
/// and the limits of the lock backend; locks need no schema and have one connection.
const WITHOUT_EFFECT: [&str; 16] = [
    "application_name",
    "connect_timeout",
    "connection_limit",
    "fallback_application_name",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "pgbouncer",
    "pool_timeout",
    "schema",
    "sslcompression",
    "statement-cache-capacity",
    "tcp_user_timeout",
];

/// Options that change nothing with some values, and cannot be kept with others; what to do then.
const KEPT_WITH: [(&str, &[&str], &str); 17] = [
    (
        "channel_binding",
        &["prefer", "disable"],
        "the driver binds no channel; remove it, and set sslmode=verify-full",
    ),
    (
        "client_encoding",
        &["utf8", "utf-8", "auto"],
        "sessions speak UTF-8; remove it",
    ),
    (
        "gssencmode",
        &["prefer", "disable"],
        "the driver knows no GSSAPI; remove it, and set sslmode=verify-full",
    ),
    (
        "load_balance_hosts",
        &["disable"],
        "there is one primary; remove it",
    ),
    (
        "passfile",
        &[],
        "set the environment variable PGPASSFILE instead",
    ),
    (
        "replication",
        &["false", "off", "no", "0"],
        "locks need a session of SQL; remove it",
    ),
    (
        "require_auth",
        &[],
        "the driver takes what the server asks for; remove it, and set sslmode=verify-full",
    ),
    (
        "requirepeer",
        &[],
        "the driver does not look who has the socket; remove it",
    ),
    ("service", &[], "write the values of that service out"),
    ("ssl", &["false"], "write sslmode=verify-full"),
    ("sslcertmode", &["allow"], "remove it"),
    ("sslcrl", &[], "the driver reads no such list; remove it"),
    ("sslnegotiation", &["postgres"], "remove it"),
    (
        "sslpassword",
        &[],
        "give the driver a key file without a password",
    ),
    (
        "sslsni",
        &["1"],
        "the driver tells the server its name; remove it",
    ),
    (
        "ssl_min_protocol_version",
        &["tlsv1", "tlsv1.1", "tlsv1.2"],
        "the driver takes TLS 1.2 and newer; demand more on the server",
    ),
    (
        "target_session_attrs",
        &["any", "read-write", "primary"],
        "locks need the primary; remove it, and name the primary as the host",
    ),
];

const SSL_MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// The options of a connection to the server at this URL, which is read as
/// [`PostgresBackend::connect`](super::PostgresBackend::connect) reads it: for what else a service does with that
/// server, such as a pool. Nothing is connected.
///
/// A server on another machine whose certificate is not verified is warned of in the log.
///
/// ```
/// use lock_core::postgres::connect_options;
/// use lock_core::postgres::sqlx::PgPool;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), lock_core::LockError> {
/// let options = connect_options("postgres://app@db.internal/shop?sslmode=verify-full")?;
/// let pool = PgPool::connect_lazy_with(options);
/// # let _ = pool;
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// [`Misconfigured`](crate::LockErrorKind::Misconfigured) when the URL is wrong. No error repeats it: it has the
/// password in it.
pub fn connect_options(url: &str) -> Result<PgConnectOptions, LockError> {
    let options = parse(url)?;
    warn_unless_verified(&options);
    Ok(options)
}

/// Reads `postgres://user:password@host:port/database?option=value`. No error repeats the text: it
/// has the password in it.
pub(crate) fn parse(text: &str) -> Result<PgConnectOptions, LockError> {
    let text = plain_text::trimmed(text);
    plain_text::check(text).map_err(|error| error.in_setting("the connection string"))?;
    if let Some(slip) = plain_text::slip(text) {
        return Err(wrong(slip));
    }
    if let Some(form) = other_form(text) {
        return Err(wrong(form));
    }
    let text = without_host(text).map_or(Cow::Borrowed(text), Cow::Owned);
    let mut url = Url::parse(&text).map_err(|error| {
        wrong(
            "is no URL; write postgres://user:password@host:5432/database, with special characters \
             of the password percent-encoded",
        )
        .with_source(error)
    })?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(wrong(
            "does not begin with `postgres:`; write postgres://user:password@host/database",
        ));
    }
    check_structure(&url)?;
    let mut without_effect = Vec::new();
    let mut taken = Vec::new();
    for (n, (key, value)) in url.query_pairs().enumerate() {
        match fate(n + 1, &key, &value)? {
            Some(name) => without_effect.push(name),
            None => taken.push((key.into_owned(), value.into_owned())),
        }
    }
    if !without_effect.is_empty() {
        tracing::info!(
            "options of the PostgreSQL connection string change nothing for locks: {}",
            without_effect.join(", ")
        );
    }
    let trust = Trust::of(&mut taken).map_err(wrong)?;
    url.set_query(None);
    if !taken.is_empty() {
        url.query_pairs_mut().extend_pairs(taken);
    }
    // Without the driver's error, which shows values.
    let options = PgConnectOptions::from_str(url.as_str())
        .map_err(|_| wrong("is not usable; check its host, its port and its percent-encoding"))?;
    // The driver looks an address in brackets up as a name.
    let host = options.get_host();
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let options = match address.map(str::to_owned) {
        Some(address) => options.host(&address),
        None => options,
    };
    trust.tell(options)
}

/// Refuses what comes of a password with special characters in it, and what the driver would ignore.
fn check_structure(url: &Url) -> Result<(), LockError> {
    // None of it is shown: it is the rest of a password.
    if url.query().is_some_and(|query| query.contains('@')) {
        return Err(wrong(
            "has a `@` after its `?`; write a `?` in a password as %3F, and a `@` in an option as %40",
        ));
    }
    if url.path().contains('@') {
        return Err(wrong(
            "has a `@` after its `/`; write a `/` in a password as %2F, and a `@` in the name of a \
             database as %40",
        ));
    }
    if url.fragment().is_some() {
        return Err(wrong("has a `#`; write it as %23"));
    }
    Ok(())
}

/// The name of an option that changes nothing; `None` for one that the driver takes.
fn fate(position: usize, key: &str, value: &str) -> Result<Option<&'static str>, LockError> {
    let listed = |names: &[&'static str]| names.iter().copied().find(|name| *name == key);
    if let Some(name) = listed(&WITHOUT_EFFECT) {
        return Ok(Some(name));
    }
    if let Some((name, kept, advice)) = KEPT_WITH.iter().find(|(name, ..)| *name == key) {
        if kept.contains(&value.to_ascii_lowercase().as_str()) {
            return Ok(Some(*name));
        }
        return Err(wrong(format!(
            "has the option `{name}` with a value that cannot be kept: {advice}"
        )));
    }
    let is_setting = key.starts_with("options[") && key.ends_with(']');
    if !is_setting && listed(&TAKEN).is_none() {
        return Err(wrong(unknown(position, key, &TAKEN)));
    }
    let is_right = match key {
        "sslmode" | "ssl-mode" if !SSL_MODES.contains(&value.to_ascii_lowercase().as_str()) => {
            let meant =
                nearest(value, &SSL_MODES).map(|mode| format!("; meant is `{mode}` perhaps"));
            return Err(wrong(format!(
                "has an unknown `{key}`; known are {}{}",
                SSL_MODES.join(", "),
                meant.unwrap_or_default()
            )));
        }
        "host" | "hostaddr" | "port" if value.contains(',') => {
            return Err(wrong(SEVERAL_HOSTS));
        }
        "port" => value.parse::<u16>().is_ok(),
        "hostaddr" => value.parse::<IpAddr>().is_ok(),
        _ => true,
    };
    match is_right {
        true => Ok(None),
        false => Err(wrong(format!("has a `{key}` that is none"))),
    }
}

fn wrong(what: impl std::fmt::Display) -> LockError {
    LockError::misconfigured(format!("the connection string {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_with_all_that_the_driver_knows() {
        let options = parse(
            " postgresql://app:p%40ss@db.example:6432/shop?sslmode=verify-full&options[work_mem]=4MB\n",
        )
        .unwrap();
        assert_eq!(options.get_host(), "db.example");
        assert_eq!(options.get_port(), 6432);
        assert_eq!(options.get_database(), Some("shop"));
        let local = parse("postgres://app@[::1]:6432/shop").unwrap();
        assert_eq!(local.get_host(), "::1");
        let socket = parse("postgres:///shop?host=/run/postgresql").unwrap();
        assert_eq!(
            socket.get_socket().unwrap().to_str(),
            Some("/run/postgresql")
        );
        let hosted = parse("postgres://app:p%40ss@/shop?host=/cloudsql/a:b:c").unwrap();
        assert_eq!(hosted.get_username(), "app");
        assert_eq!(hosted.get_database(), Some("shop"));
        assert_eq!(
            hosted.get_socket().unwrap().to_str(),
            Some("/cloudsql/a:b:c")
        );
    }

    #[test]
    fn options_that_change_nothing_are_taken() {
        let options = parse(
            "postgres://app@db/shop?channel_binding=prefer&connect_timeout=5&keepalives=1\
             &keepalives_idle=30&target_session_attrs=read-write&gssencmode=disable&sslsni=1\
             &client_encoding=UTF8&tcp_user_timeout=1&sslcompression=0&fallback_application_name=x\
             &statement-cache-capacity=0&application_name=x&schema=public&sslmode=require",
        )
        .unwrap();
        assert_eq!(options.get_database(), Some("shop"));
        assert!(matches!(
            options.get_ssl_mode(),
            sqlx::postgres::PgSslMode::Require
        ));
    }

    #[test]
    fn the_authorities_of_the_machine_are_trusted_as_libpq_does() {
        let mode = |query| {
            let options = parse(&format!("postgres://app@db/shop?{query}")).unwrap();
            // A file of that name would be shown.
            assert!(!format!("{options:?}").contains("system"), "{options:?}");
            options.get_ssl_mode()
        };
        use sqlx::postgres::PgSslMode::VerifyFull;
        assert!(matches!(mode("sslrootcert=system"), VerifyFull));
        assert!(matches!(
            mode("ssl-ca=system&sslmode=Verify-Full"),
            VerifyFull
        ));
    }

    #[test]
    fn what_is_not_understood_is_named_and_the_password_is_not() {
        for (text, said) in [
            ("postgres://app:hunter2@db/shop?ssl=true", "`ssl`"),
            (
                "postgres://app:hunter2@db/shop?channel_binding=require",
                "`channel_binding`",
            ),
            (
                "postgres://app:hunter2@db/shop?target_session_attrs=standby",
                "the primary",
            ),
            ("postgres://app:hunter2@db/shop?passfile=/x", "PGPASSFILE"),
            (
                "postgres://app:hunter2@db/shop?client_encoding=hunter2",
                "UTF-8",
            ),
            (
                "postgres://app:hunter2@db/shop?pool_size=5",
                "unknown option (number 1)",
            ),
            (
                "postgres://app:hunter2@db/shop?password=ab&hunter2",
                "(number 2)",
            ),
            (
                "postgres://app:hunter2@db/shop?ssl_mod=x",
                "`ssl-mode` perhaps",
            ),
            ("mysql://app:hunter2@db/shop", "`mysql:`"),
            ("db:5432,password=hunter2", "does not begin with"),
            ("hunter2:x", "does not begin with"),
            ("app hunter2", "postgres://"),
            ("postgres://app:hunter2@db:port/shop", "no URL"),
            ("postgres://app:12/hunter2@db/shop", "%2F"),
            ("postgres://app:12#hunter2@db/shop", "%23"),
            ("postgres://app:hunter2@db1,db2/shop", "several hosts"),
            (
                "postgres://app:hunter2@db1:5432,db2:5433/shop",
                "several hosts",
            ),
            ("postgres://app:hunter2@/shop?host=db1,db2", "several hosts"),
            (
                "postgres://app:hunter2@db/shop?hostaddr=10.0.0.1,10.0.0.2",
                "several hosts",
            ),
            (
                "postgres://app:hunter2@db/shop?port=5432,5433",
                "several hosts",
            ),
            (
                "postgres://app:hunter2@db/shop?sslmode=hunter2",
                "unknown `sslmode`",
            ),
            (
                "postgres://app:hunter2@db/shop?sslmode=verify_full",
                "`verify-full` perhaps",
            ),
            ("postgres://app:hunter2@db/shop?port=hunter2", "`port`"),
            (
                "postgres://app:hunter2@db/shop?sslrootcert=system&sslmode=require",
                "needs `sslmode=verify-full`",
            ),
            (
                "postgres://app:hunter2@db/shop?sslcert=/hunter2",
                "without `sslkey`",
            ),
            (
                "postgres://app:hunter2@db/shop?ssl-key=/hunter2",
                "without `sslcert`",
            ),
            (
                "postgres://app:hunter2@db/shop?hostaddr=hunter2",
                "`hostaddr`",
            ),
            ("postgres://app:hunter2%ff@db/shop", "percent-encoding"),
            ("postgres://app:12?hunter2@db/shop", "%3F"),
            ("postgres://app:hunter2@db/sh\nop", "U+000A"),
            ("", "no URL"),
            ("\"postgres://app:hunter2@db/shop\"", "is in quotes"),
            (
                "DATABASE_URL=postgres://app:hunter2@db/shop",
                "name of a variable",
            ),
            ("psql postgres://app:hunter2@db/shop", "`psql`"),
            ("${HUNTER2}", "placeholder"),
            ("jdbc:postgresql://db/shop?password=hunter2", "JDBC"),
            ("host=db password=hunter2", "libpq"),
            ("Host=db;Password=hunter2", ".NET"),
            ("postgres:app:hunter2@db/shop", "no `//`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.is_misconfigured(), "{text}");
            assert!(error.to_string().contains(said), "{text}: {error}");
            assert!(
                !format!("{error} {error:?}").contains("hunter2"),
                "{text}: {error:?}"
            );
        }
    }
}
