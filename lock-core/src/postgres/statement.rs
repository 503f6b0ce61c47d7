//! Statements whose answer proves which session gave it.

use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgRow, PgValueRef};
use sqlx::query::Query;
use sqlx::{Row, ValueRef};

use super::sql;

/// A statement with the values that it has so far.
pub(super) type Bound<'q> = Query<'q, Postgres, PgArguments>;

/// A statement that does nothing in any session but the one whose marker it has as `$1`, and whose
/// answer there begins with a value.
///
/// Made in a `const` block, so that a statement which forgets the marker does not compile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statement(&'static str);

impl Statement {
    /// # Panics
    ///
    /// When the statement does not look at the marker.
    pub(super) const fn new(sql: &'static str) -> Self {
        assert!(
            contains(sql.as_bytes(), sql::IN_OUR_SESSION.as_bytes()),
            "the statement does not look at the marker of the session"
        );
        Self(sql)
    }

    pub(super) fn sql(self) -> &'static str {
        self.0
    }

    pub(super) fn query<'q>(self) -> Bound<'q> {
        sqlx::query(self.0)
    }
}

/// Whether the session that the statement was meant for gave this answer.
pub(super) fn is_proof(answer: &[PgRow]) -> bool {
    let first = answer.first().and_then(|row| row.try_get_raw(0).ok());
    first.is_some_and(|value: PgValueRef<'_>| !value.is_null())
}

const fn contains(text: &[u8], part: &[u8]) -> bool {
    let mut start = 0;
    while start + part.len() <= text.len() {
        let mut same = 0;
        while same < part.len() && text[start + same] == part[same] {
            same += 1;
        }
        if same == part.len() {
            return true;
        }
        start += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "does not look at the marker")]
    fn a_statement_that_forgets_the_marker_is_refused() {
        let _ = Statement::new("SELECT true");
    }
}
