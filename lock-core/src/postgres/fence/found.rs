//! The table of a fence as it is found, and why a fence cannot be built on it.

use sqlx::Row;
use sqlx::postgres::PgRow;

/// Facts about the table, whose name is an SQL literal without its quotes.
pub(super) fn look_at(table: &str) -> String {
    let is = "OPERATOR(pg_catalog.=)";
    format!(
        "SELECT c.oid::pg_catalog.regclass::varchar, \
           pg_catalog.pg_get_userbyid(c.relowner)::varchar, \
           c.relowner {is} ANY (ARRAY[n.nspowner, d.datdba]) OR EXISTS (SELECT FROM \
             pg_catalog.pg_roles AS r WHERE r.oid {is} c.relowner \
             AND (r.rolsuper OR r.rolname {is} current_user)), \
           c.relkind {is} 'r' AND NOT c.relrowsecurity AND NOT EXISTS (SELECT FROM \
             pg_catalog.pg_trigger AS t WHERE t.tgrelid {is} c.oid AND NOT t.tgisinternal) \
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite AS w WHERE w.ev_class {is} c.oid), \
           ARRAY(SELECT a.attname::varchar FROM pg_catalog.pg_attribute AS a \
             WHERE a.attrelid {is} c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 \
             AND NOT a.attisdropped ORDER BY a.attnum USING OPERATOR(pg_catalog.<)), \
           ARRAY(SELECT a.atttypid::bigint FROM pg_catalog.pg_attribute AS a \
             WHERE a.attrelid {is} c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 \
             AND NOT a.attisdropped ORDER BY a.attnum USING OPERATOR(pg_catalog.<)) \
         FROM pg_catalog.pg_class AS c \
         JOIN pg_catalog.pg_namespace AS n ON n.oid {is} c.relnamespace \
         JOIN pg_catalog.pg_database AS d ON d.datname {is} pg_catalog.current_database() \
         WHERE c.oid {is} '{table}'::pg_catalog.regclass"
    )
}

/// The table as it is.
pub(super) struct Found {
    table: String,
    owner: String,
    is_owned_by_us: bool,
    is_plain: bool,
    columns: Vec<String>,
    types: Vec<i64>,
}

/// Each column with the number of its type, the same in every PostgreSQL.
const COLUMNS: [(&str, i64); 4] = [
    ("namespace", 25),
    ("lock", 25),
    ("token", 20),
    ("checked_at", 1184),
];

impl Found {
    pub(super) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            table: row.try_get(0)?,
            owner: row.try_get(1)?,
            is_owned_by_us: row.try_get(2)?,
            is_plain: row.try_get(3)?,
            columns: row.try_get(4)?,
            types: row.try_get(5)?,
        })
    }

    /// Why a fence cannot be built on it.
    pub(super) fn wrong(&self) -> Option<String> {
        let Self { table, owner, .. } = self;
        let columns = self.columns.iter().map(String::as_str);
        if !self.is_owned_by_us {
            Some(format!(
                "the table {table} belongs to the role {owner}, who can change what a fence says; let \
                 a superuser drop it, or give it to a role of yours: ALTER TABLE {table} OWNER TO ..; \
                 a schema in which only your roles may create, by `Fence::schema`, prevents it"
            ))
        } else if !self.is_plain {
            Some(format!(
                "{table} is no plain table: it has triggers, rules or row security, which decide what \
                 a fence says; drop them, or drop it and migrate again"
            ))
        } else if !columns.zip(self.types.iter().copied()).eq(COLUMNS) {
            Some(format!(
                "the table {table} has other columns than `Fence::MIGRATION` makes; drop it and \
                 migrate again, or choose another schema by `Fence::schema`"
            ))
        } else {
            None
        }
    }
}
