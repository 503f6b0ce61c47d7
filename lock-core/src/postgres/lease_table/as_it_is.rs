//! The table as it is found, and why locks cannot be kept in it.

use std::borrow::Cow;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::literal::Text;
use super::names::{COMMENT, FORMER, VERSION};

/// Each column with the number of its type, the same in every PostgreSQL.
const COLUMNS: [(&str, i64); 16] = [
    ("key", 2950),
    ("namespace", 25),
    ("name", 25),
    ("owner", 2950),
    ("holder", 25),
    ("lease", 23),
    ("expires", 1184),
    ("acquired", 1184),
    ("token", 20),
    ("awaited", 16),
    ("readers", 2951),
    ("readers_until", 1185),
    ("readers_since", 1185),
    ("readers_by", 1009),
    ("wanted_by", 2950),
    ("wanted_until", 1184),
];

/// What there is to know of the server and of the table of this name, which is quoted; and in which other schemas
/// there are tables of locks called `alone`, if it is given. Names are looked for where the role looks, and functions
/// and operators in `pg_catalog` alone.
pub(super) fn look(name: &str, alone: Option<&str>) -> String {
    let (name, is) = (Text(name), "OPERATOR(pg_catalog.=)");
    let elsewhere = alone.map_or_else(|| "ARRAY[]::varchar[]".to_owned(), elsewhere);
    let may = |right| format!("pg_catalog.has_table_privilege(c.oid, '{right}')");
    let (select, insert, update, delete) =
        (may("SELECT"), may("INSERT"), may("UPDATE"), may("DELETE"));
    format!(
        "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4, \
           pg_catalog.pg_is_in_recovery(), \
           pg_catalog.quote_ident(n.nspname) OPERATOR(pg_catalog.||) '.' \
             OPERATOR(pg_catalog.||) pg_catalog.quote_ident(c.relname), \
           pg_catalog.obj_description(c.oid, 'pg_class'), \
           c.relpersistence {is} 'p', \
           c.relkind {is} 'r' AND NOT c.relrowsecurity AND NOT EXISTS (SELECT FROM \
             pg_catalog.pg_trigger AS t WHERE t.tgrelid {is} c.oid AND NOT t.tgisinternal) \
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite AS w WHERE w.ev_class {is} c.oid), \
           {select} AND {insert} AND {update} AND {delete}, \
           ARRAY(SELECT a.attname::varchar FROM pg_catalog.pg_attribute AS a \
             WHERE a.attrelid {is} c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 \
             AND NOT a.attisdropped ORDER BY a.attnum USING OPERATOR(pg_catalog.<)), \
           ARRAY(SELECT a.atttypid::bigint FROM pg_catalog.pg_attribute AS a \
             WHERE a.attrelid {is} c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 \
             AND NOT a.attisdropped ORDER BY a.attnum USING OPERATOR(pg_catalog.<)), \
           {elsewhere} \
         FROM (SELECT pg_catalog.to_regclass({name})::pg_catalog.oid AS oid) AS named \
         LEFT JOIN pg_catalog.pg_class AS c ON c.oid {is} named.oid \
         LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid {is} c.relnamespace"
    )
}

/// The schemas, or the first of many, that have a table of locks of this name, of whatever version, beside the one
/// that is `named`. Any role can make temporary ones, which are of a session.
fn elsewhere(table: &str) -> String {
    let (table, is) = (Text(table), "OPERATOR(pg_catalog.=)");
    // 1259 is `pg_class`, in each PostgreSQL.
    format!(
        "ARRAY(SELECT s.nspname::varchar FROM pg_catalog.pg_class AS o \
           JOIN pg_catalog.pg_namespace AS s ON s.oid {is} o.relnamespace \
           JOIN pg_catalog.pg_description AS d ON d.objoid {is} o.oid \
           WHERE o.relname {is} {table}::pg_catalog.name \
           AND o.oid OPERATOR(pg_catalog.<>) coalesce(named.oid, '0'::pg_catalog.oid) \
           AND o.relpersistence OPERATOR(pg_catalog.<>) 't' \
           AND d.classoid {is} '1259'::pg_catalog.oid AND d.objsubid {is} 0 \
           AND pg_catalog.strpos(d.description, '{COMMENT}') {is} 1 \
           ORDER BY s.nspname USING OPERATOR(pg_catalog.<) LIMIT 5)"
    )
}

/// The schemas of other tables of locks, of such a row.
pub(super) fn read_elsewhere(row: &PgRow) -> Result<Vec<String>, sqlx::Error> {
    row.try_get(9)
}

/// The table as it is.
pub(super) struct AsItIs {
    pub(super) name: String,
    comment: Option<String>,
    is_logged: bool,
    is_plain: bool,
    is_ours_to_use: bool,
    columns: Vec<String>,
    types: Vec<i64>,
}

impl AsItIs {
    pub(super) fn read(row: &PgRow) -> Result<Option<Self>, sqlx::Error> {
        let Some(name) = row.try_get(2)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            name,
            comment: row.try_get(3)?,
            is_logged: row.try_get(4)?,
            is_plain: row.try_get(5)?,
            is_ours_to_use: row.try_get(6)?,
            columns: row.try_get(7)?,
            types: row.try_get(8)?,
        }))
    }

    /// Whether it is a table without readers.
    pub(super) fn is_former(&self) -> bool {
        self.comment.as_deref() == Some(FORMER)
    }

    /// Why locks cannot be kept in it.
    pub(super) fn wrong(&self) -> Option<Cow<'static, str>> {
        let Self { name, .. } = self;
        let columns = self.columns.iter().map(String::as_str);
        match self.comment.as_deref() {
            Some(VERSION) => {}
            Some(other) if other.starts_with(COMMENT) => {
                return Some(Cow::Owned(format!(
                    "{name} is a `{other}`, and this library needs a `{VERSION}`: use one version of the \
                     library in the whole fleet, or give the new one another table"
                )));
            }
            _ => {
                return Some(Cow::Owned(format!(
                    "{name} is no table of locks, since its comment is not `{VERSION}`; give another name, or \
                     drop it and have it made again"
                )));
            }
        }
        if !self.is_logged {
            return Some(Cow::Owned(format!(
                "{name} is UNLOGGED: a crash would empty it, and tokens would go back; run `ALTER TABLE {name} \
                 SET LOGGED;`"
            )));
        }
        if !self.is_plain {
            return Some(Cow::Owned(format!(
                "{name} is no plain table: it has triggers, rules, partitions or row security, which decide \
                 what a lock is; drop them"
            )));
        }
        if !self.is_ours_to_use {
            return Some(Cow::Owned(format!(
                "this role needs rights on the table of locks; run, for the role in place of `app`: \
                 `GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO app;`"
            )));
        }
        (!columns.zip(self.types.iter().copied()).eq(COLUMNS)).then(|| {
            Cow::Owned(format!(
                "{name} has other columns than it was made with; give another name, or drop it and have it \
                 made again"
            ))
        })
    }
}
