//! What a text is that is no URL of PostgreSQL: the forms of other programs, and of other engines.

use std::borrow::Cow;

use crate::plain_text;
use crate::settings::ELSEWHERE;

/// How a connection string is written here.
const FORM: &str = "write postgres://user:password@host:5432/database";

/// Engines whose URLs services have in the same variable. Other schemes are not shown: they can be the
/// beginning of anything.
const OTHER_ENGINES: [&str; 22] = [
    "amqp",
    "clickhouse",
    "cockroach",
    "cockroachdb",
    "duckdb",
    "file",
    "http",
    "https",
    "libsql",
    "mariadb",
    "mongodb",
    "mongodb+srv",
    "mssql",
    "mysql",
    "mysqlx",
    "oracle",
    "redis",
    "rediss",
    "sqlite",
    "sqlite3",
    "sqlserver",
    "valkey",
];

/// Schemes of other clients of PostgreSQL.
const OTHER_CLIENTS: [&str; 5] = ["pg", "pgsql", "postgis", "psql", "psycopg2"];

/// What libpq's lists of keywords begin with.
const KEYWORDS: [&str; 9] = [
    "dbname", "host", "hostaddr", "options", "password", "port", "service", "sslmode", "user",
];

/// What libpq tries one after the other: a standby among them would be refused, or taken after a fail-over.
pub(super) const SEVERAL_HOSTS: &str =
    "names several hosts; name the primary alone, by a name that follows it in a fail-over";

/// The scheme of a URL, if that is one of another engine.
pub(super) fn other_engine(text: &str) -> Option<&'static str> {
    let text = plain_text::trimmed(text).to_ascii_lowercase();
    let text = text.strip_prefix("jdbc:").unwrap_or(&text);
    let (scheme, _) = text.split_once(':')?;
    OTHER_ENGINES.into_iter().find(|engine| *engine == scheme)
}

/// What is wrong with a text as a whole, and how it is written here. It repeats none of it: there is a
/// password in it.
pub(super) fn other_form(text: &str) -> Option<Cow<'static, str>> {
    if let Some(engine) = other_engine(text) {
        let said = format!("begins with `{engine}:`, which is not PostgreSQL; {FORM}, {ELSEWHERE}");
        return Some(said.into());
    }
    let text = text.to_ascii_lowercase();
    let scheme = text.split(':').next().unwrap_or_default();
    if scheme == "jdbc" {
        return Some(
            "is one of JDBC (`jdbc:`); write postgres://user:password@host:5432/database, with user and \
             password before the host"
                .into(),
        );
    }
    if scheme.starts_with("postgresql+") || scheme.starts_with("postgres+") {
        return Some("names a driver in its scheme, after the `+`; write `postgres:` alone".into());
    }
    if let Some(other) = OTHER_CLIENTS.iter().find(|other| **other == scheme) {
        return Some(format!("begins with `{other}:`; write `postgres:`").into());
    }
    if matches!(scheme, "postgres" | "postgresql") {
        let rest = &text[scheme.len()..];
        let Some(rest) = rest.strip_prefix("://") else {
            return Some(format!("has no `//` after `{scheme}:`; {FORM}").into());
        };
        return has_several_hosts(rest).then(|| SEVERAL_HOSTS.into());
    }
    if text.contains("://") {
        return None;
    }
    let (first, _) = text.split_once('=')?;
    let is_name = first.chars().all(|c| c.is_ascii_alphanumeric() || c == ' ');
    if is_name && text.contains(';') {
        return Some(format!("is a list as .NET has it (`Host=..;Database=..`); {FORM}").into());
    }
    let is_keyword = KEYWORDS.contains(&first.trim_end());
    is_keyword.then(|| {
        format!("is a list of keywords as libpq has it (`host=db dbname=shop`); {FORM}").into()
    })
}

/// Looked for in what follows the scheme, which is no URL where they have ports.
fn has_several_hosts(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((_, hosts)) => hosts.contains(','),
        // Else it is part of a password with a `/` in it.
        None => authority.contains(',') && !rest.contains('@'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_forms_are_told_by_their_name() {
        for (text, said) in [
            ("jdbc:postgresql://db:5432/shop?user=app", "JDBC"),
            ("jdbc:mysql://db/shop", "begins with `mysql:`"),
            ("JDBC:SQLSERVER://db;user=app", "begins with `sqlserver:`"),
            ("mysql://app:x@db/shop", "`mysql:`, which is not PostgreSQL"),
            ("sqlite:shop.db", "begins with `sqlite:`"),
            ("file:shop.db", "begins with `file:`"),
            ("postgresql+asyncpg://app:x@db/shop", "names a driver"),
            ("postgis://app:x@db/shop", "write `postgres:`"),
            ("postgres:app:x@db/shop", "no `//` after `postgres:`"),
            ("postgresql:/db/shop", "no `//` after `postgresql:`"),
            ("host=db dbname=shop password=x", "as libpq has it"),
            ("user = app host = db", "as libpq has it"),
            (
                "Server=db;Port=5432;User Id=app;Password=x",
                "as .NET has it",
            ),
            ("Host=db;Username=app;Password=x;", "as .NET has it"),
        ] {
            let told = other_form(text);
            assert!(
                told.as_ref().is_some_and(|told| told.contains(said)),
                "{text}: {told:?}"
            );
        }
        for text in [
            "postgres://app:a=b;c@db/shop",
            "postgresql:///shop?host=/run/postgresql",
            "POSTGRES://app@db/shop",
            "postgres://app:a,b@db:5432/shop?options=-c%20search_path=a,b",
        ] {
            assert_eq!(other_form(text), None, "{text}");
        }
        // Ours, written in another way: others may have their locks there.
        assert_eq!(other_engine("jdbc:postgresql://db/shop"), None);
    }
}
