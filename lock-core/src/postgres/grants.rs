//! The rights that a role can need, as lines of SQL, and which of them an error is about.

use crate::LockError;

/// What a role needs on a server where it was taken from PUBLIC, as lines for `psql`: the role is
/// `app`, the database `shop`, the schema of the [`Fence`](super::Fence) `billing`, that of the
/// [`LeaseTable`](super::LeaseTable) `locks`. A server as it is installed gives all roles the rights to its
/// functions and views.
///
#[doc = concat!("```sql\n", include_str!("grants.sql"), "```")]
pub const GRANTS: &str = include_str!("grants.sql");

/// Sections of [`GRANTS`], by how their titles begin.
pub(super) const LOCKS: &str = "Locks";
pub(super) const RECOVERY: &str = "Recovery";
pub(super) const MARK: &str = "Fleet marker";
pub(super) const IN_TRANSACTION: &str = "lock_in_transaction";

/// What a statement lacked, by what the server says of it.
pub(super) fn refused(error: sqlx::Error) -> LockError {
    let lines: Vec<_> = GRANTS
        .lines()
        .filter(|line| line.starts_with("GRANT "))
        .collect();
    let mut named = named_in(&message(&error), &lines);
    named.sort_unstable();
    named.dedup();
    if named.is_empty() {
        return LockError::misconfigured(
            "the role lacks a right, which the source of this error names; grant what the guide lists under Security, \
             as does `lock_core::postgres::GRANTS`",
        )
        .with_source(error);
    }
    LockError::misconfigured(format!(
        "the role lacks a right; run as a superuser, for the role in place of `app`: `{}`",
        named.join(" ")
    ))
    .with_source(error)
}

pub(super) fn message(error: &sqlx::Error) -> String {
    let error = error.as_database_error();
    error.map_or_else(String::new, |error| error.message().to_owned())
}

/// Those of `lines` whose object a message names, in whatever language it is.
pub(super) fn named_in<'l>(message: &str, lines: &[&'l str]) -> Vec<&'l str> {
    let words: Vec<_> = message
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    let is_named =
        |line: &&&str| object(line).is_some_and(|name| words.contains(&name.trim_matches('"')));
    lines.iter().filter(is_named).copied().collect()
}

/// The lines of a section.
pub(super) fn lines(section: &str) -> Vec<&'static str> {
    let sections = GRANTS.split("\n\n");
    let of_section = sections.filter(|text| {
        text.strip_prefix("-- ")
            .is_some_and(|title| title.starts_with(section))
    });
    of_section
        .flat_map(str::lines)
        .filter(|line| line.starts_with("GRANT ") && trial(line).is_some())
        .collect()
}

/// The name of what a line is about.
fn object(line: &str) -> Option<&str> {
    let named = line.split_once(" ON ")?.1;
    let named = named.strip_prefix("FUNCTION ").unwrap_or(named);
    let named = named.strip_prefix("pg_catalog.")?;
    named.split(['(', ' ']).next()
}

/// A statement that needs the right of a line, and does nothing: no row is asked for, and the server
/// looks at rights before.
pub(super) fn trial(line: &str) -> Option<String> {
    let name = object(line)?;
    let Some((_, arguments)) = line.split_once('(') else {
        return Some(format!("SELECT FROM pg_catalog.{name} WHERE false"));
    };
    let arguments = arguments.split_once(')')?.0;
    let arguments = arguments.split(", ").filter(|of| !of.is_empty());
    let values: Vec<String> = arguments
        .map(|of| match of {
            "anyarray" => "ARRAY[0]".to_owned(),
            "\"any\"" => "0".to_owned(),
            "bit" => "B'0'".to_owned(),
            "pg_lsn" => "'0/0'::pg_lsn".to_owned(),
            "timestamptz" => "'epoch'::timestamptz".to_owned(),
            "uuid" => format!("'{:032}'::uuid", 0),
            of => format!("'0'::{of}"),
        })
        .collect();
    let values = values.join(", ");
    Some(format!("SELECT pg_catalog.{name}({values}) WHERE false"))
}

/// Lines for this role.
pub(super) fn granted_to(lines: &[&str], role: &str) -> String {
    let lines = lines
        .iter()
        .map(|line| line.replace(" TO app;", &format!(" TO {role};")));
    lines.collect::<Vec<_>>().join(" ")
}

/// A name as SQL takes it.
pub(super) fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && (name.chars()).all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_that_is_looked_for_can_be_tried() {
        for section in [LOCKS, RECOVERY, MARK, IN_TRANSACTION] {
            let of_section = lines(section);
            assert!(!of_section.is_empty(), "{section}");
            for line in of_section {
                assert!(line.ends_with(" TO app;"), "{line}");
                assert!(trial(line).is_some(), "{line}");
            }
        }
    }

    #[test]
    fn a_trial_asks_for_no_row() {
        let line = "GRANT EXECUTE ON FUNCTION pg_catalog.pg_try_advisory_lock_shared(integer, integer) TO app;";
        assert_eq!(
            trial(line).unwrap(),
            "SELECT pg_catalog.pg_try_advisory_lock_shared('0'::integer, '0'::integer) WHERE false"
        );
        let line = "GRANT SELECT ON pg_catalog.pg_locks TO app;";
        assert_eq!(
            trial(line).unwrap(),
            "SELECT FROM pg_catalog.pg_locks WHERE false"
        );
        assert_eq!(trial("GRANT CONNECT ON DATABASE shop TO app;"), None);
    }

    #[test]
    fn the_lines_name_the_role_that_lacks_them() {
        let role = quoted("Shop's \"one\"");
        let line = granted_to(&["GRANT SELECT ON pg_catalog.pg_locks TO app;"], &role);
        assert_eq!(
            line,
            "GRANT SELECT ON pg_catalog.pg_locks TO \"Shop's \"\"one\"\"\";"
        );
        assert_eq!(quoted("shop_1"), "shop_1");
    }
}
