//! Connection strings. The driver ignores options that it does not know; here they are errors.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use url::Url;

use super::errors;
use crate::LockError;

/// What the driver understands.
const OPTIONS: [&str; 17] = [
    "application_name",
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

/// Reads `postgres://user:password@host:port/database?option=value`. No error repeats the text: it
/// has the password in it.
pub(crate) fn parse(text: &str) -> Result<PgConnectOptions, LockError> {
    let url = Url::parse(text).map_err(|error| {
        LockError::misconfigured(
            "the connection string is no URL; write postgres://user:password@host:5432/database, \
             with special characters of the password percent-encoded",
        )
        .with_source(error)
    })?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(LockError::misconfigured(format!(
            "the connection string begins with `{}:`; write postgres://user:password@host/database",
            url.scheme()
        )));
    }
    // Not shown: it is the rest of a password that has a `?`.
    if url.query().is_some_and(|query| query.contains('@')) {
        return Err(LockError::misconfigured(
            "the connection string has a `@` after its `?`; write a `?` in a password as %3F, and a \
             `@` in an option as %40",
        ));
    }
    if let Some((unknown, _)) = url.query_pairs().find(|(key, _)| !is_known(key)) {
        return Err(LockError::misconfigured(format!(
            "the connection string has an unknown option `{unknown}`; known are {}",
            OPTIONS.join(", ")
        )));
    }
    PgConnectOptions::from_str(text).map_err(errors::connecting)
}

fn is_known(key: &str) -> bool {
    OPTIONS.contains(&key) || (key.starts_with("options[") && key.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_with_all_that_the_driver_knows() {
        let options = parse(
            "postgresql://app:p%40ss@db.example:6432/shop?sslmode=require&application_name=x&options[work_mem]=4MB",
        )
        .unwrap();
        assert_eq!(options.get_host(), "db.example");
        assert_eq!(options.get_port(), 6432);
        assert_eq!(options.get_database(), Some("shop"));
    }

    #[test]
    fn what_is_not_understood_is_named_and_the_password_is_not() {
        for (text, said) in [
            ("postgres://app:hunter2@db/shop?ssl=true", "`ssl`"),
            ("postgres://app:hunter2@db/shop?pool_size=5", "`pool_size`"),
            (
                "postgres://app:hunter2@db/shop?statement-cache-capacity=0",
                "`statement-cache-capacity`",
            ),
            ("mysql://app:hunter2@db/shop", "`mysql:`"),
            ("db:5432,password=hunter2", "`db:`"),
            ("app:hunter2", "postgres://"),
            ("postgres://app:hunter2@db:port/shop", "no URL"),
            ("postgres://app:hunter2@db/shop?sslmode=maybe", "not usable"),
            ("postgres://app:12?hunter2@db/shop", "%3F"),
            ("", "no URL"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.is_misconfigured(), "{text}");
            assert!(error.to_string().contains(said), "{text}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}");
        }
    }
}
