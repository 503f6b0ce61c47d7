//! The mark of the provider: what holds the locks of those who use this database.
//!
//! Each process holds, shared, the key of its own provider, and looks for holders of the others'. It
//! takes its own before it looks, and `pg_locks` shows what is held at one moment: of two that start at
//! once, the one that looks last sees the other. Those whose locks are in a [lease table](super::LeaseTable)
//! have no session that could hold a key, and rows there instead.

use std::ops::RangeInclusive;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::checks::{by_us, value};
use super::errors;
use super::grants::quoted;
use super::key::mark_key;
use super::lease_table::{COMMENT, RowKey, TABLE};
use super::steps::{Step, within};
use super::wire::Wire;
use crate::LockError;
use crate::checked::passed;
use crate::outage::Repeated;
use crate::settings::ProviderKind;

/// A statement that takes a key, and says whether it was free.
fn take(key: i64) -> String {
    format!("SELECT pg_catalog.pg_try_advisory_lock_shared('{key}'::int8)")
}

/// Says the position of a key that a session in our database holds: in the one where we hold ours. And the
/// lease tables of the database, whose users hold no key, in the other columns.
fn look(keys: &str, finds_tables: bool) -> String {
    let held = format!(
        "(SELECT k.position, NULL::name, NULL::name FROM (VALUES {keys}) AS k(key, position) \
         JOIN pg_locks AS l ON ((l.classid::int8 << 32) | l.objid::int8) = k.key \
         WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.mode = 'ShareLock' \
         AND l.database = (SELECT own.database FROM pg_locks AS own WHERE own.locktype = 'advisory' \
         AND own.pid = pg_backend_pid() LIMIT 1) LIMIT 1)"
    );
    if !finds_tables {
        return held;
    }
    // 1259 is `pg_class`, in each PostgreSQL.
    format!(
        "{held} UNION ALL (SELECT NULL::int4, n.nspname, c.relname FROM pg_class AS c \
         JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_description AS d ON d.objoid = c.oid \
         WHERE c.relname = '{TABLE}' AND d.classoid = '1259'::oid AND d.objsubid = 0 \
         AND starts_with(d.description, '{COMMENT}'))"
    )
}

fn read(row: &PgRow) -> Result<(Option<i32>, &str, &str), sqlx::Error> {
    let (schema, table): (Option<&str>, Option<&str>) = (row.try_get(1)?, row.try_get(2)?);
    let position = row.try_get(0)?;
    Ok((
        position,
        schema.unwrap_or_default(),
        table.unwrap_or_default(),
    ))
}

/// Why there is no start at a database that can keep no mark.
pub(crate) fn unmarked(because: LockError) -> LockError {
    errors::of_companion(because).with_advice(
        "the locks are not in that database, but it has the mark by which instances that lock with \
         another provider are found, and there is no start without: give a DATABASE_URL that leads to \
         its primary without a pooler, or set LOCK_MARKER=optional on all instances",
    )
}

/// Which provider a process uses, in a form that others find.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    own: ProviderKind,
    key: i64,
    /// Those that sessions hold.
    others: Vec<(ProviderKind, i64)>,
    /// The keys of the rows by which processes say that their locks are in a table; none for such a process.
    rows: Option<RangeInclusive<RowKey>>,
    may_switch: bool,
}

impl Mark {
    /// The mark of a provider, and whether it goes with those of others.
    pub(crate) fn new(namespace: &str, own: ProviderKind, may_switch: bool) -> Self {
        let key = |kind: ProviderKind| mark_key(namespace, kind.as_str());
        let table = ProviderKind::PostgresTable;
        let others = ProviderKind::ALL.into_iter();
        let others = others.filter(|kind| ![own, table].contains(kind));
        Self {
            own,
            key: key(own),
            others: others.map(|kind| (kind, key(kind))).collect(),
            rows: (own != table).then(|| RowKey::marks(namespace)),
            may_switch,
        }
    }

    /// The key that the session holds shared.
    pub(super) fn key(&self) -> i64 {
        self.key
    }

    /// Holds the mark for as long as the session lives.
    pub(super) async fn take(&self, wire: &mut Wire) -> Result<(), LockError> {
        let taken = within(Step::Mark, by_us(wire, take(self.key))).await?;
        if value(&taken)? {
            return Ok(());
        }
        Err(LockError::unavailable(
            "another session holds the key of our mark alone, which nothing of ours does",
        ))
    }

    /// Looks for the marks of others, unless a switch is allowed, of which it is only told. To be called
    /// with our own taken.
    pub(super) async fn check(&self, wire: &mut Wire) -> Result<Option<ProviderKind>, LockError> {
        let asked = look(&self.keys_of_others(), self.rows.is_some());
        let held = within(Step::Mark, by_us(wire, asked)).await?;
        let mut tables = Vec::new();
        for row in &held {
            let (position, schema, table) = read(row).map_err(errors::setting_up)?;
            if position.is_some() {
                return Ok(self.other(position));
            }
            tables.push(format!("{}.{}", quoted(schema), quoted(table)));
        }
        for table in tables {
            if self.is_marked(wire, &table).await? {
                return Ok(self.unless_allowed(ProviderKind::PostgresTable));
            }
        }
        passed!(
            "marker",
            "no process of this namespace locks with another provider than `{}`",
            self.own
        );
        Ok(None)
    }

    /// Whether processes have their locks in this table.
    async fn is_marked(&self, wire: &mut Wire, table: &str) -> Result<bool, LockError> {
        let Some(rows) = &self.rows else {
            return Ok(false);
        };
        let marks = format!(
            "SELECT FROM {table} AS l WHERE l.key >= '{}'::uuid AND l.key <= '{}'::uuid \
             AND l.expires > clock_timestamp() LIMIT 1",
            rows.start(),
            rows.end()
        );
        match within(Step::Mark, by_us(wire, marks)).await {
            Ok(rows) => Ok(!rows.is_empty()),
            Err(error) if errors::is_right(&error) => {
                static UNREADABLE: Repeated = Repeated::new();
                UNREADABLE.happened(table, |times| {
                    tracing::warn!(
                        table, times,
                        "the role may not read a lease table of this database: whether other processes keep \
                         the same locks there is not known; grant it USAGE on the schema and \
                         SELECT (key, expires) on the table"
                    );
                });
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The keys of others that hold an advisory lock, each with its position, as values of SQL.
    pub(super) fn keys_of_others(&self) -> String {
        let keys = self.others.iter().zip(1..);
        let keys: Vec<_> = keys
            .map(|((_, key), position)| format!("('{key}'::int8, '{position}'::int4)"))
            .collect();
        keys.join(", ")
    }

    /// Which provider has the key at this position, unless a switch to it is allowed.
    pub(super) fn other(&self, position: Option<i32>) -> Option<ProviderKind> {
        let index = usize::try_from(position?).ok()?.checked_sub(1)?;
        let (other, _) = self.others.get(index)?;
        self.unless_allowed(*other)
    }

    fn unless_allowed(&self, other: ProviderKind) -> Option<ProviderKind> {
        if self.may_switch {
            static ALLOWED: Repeated = Repeated::new();
            ALLOWED.happened(other.as_str(), |times| {
                tracing::warn!(
                    own = %self.own, %other, times,
                    "other processes lock with another provider, which LOCK_SWITCH allows: they and this \
                     one do not exclude each other"
                );
            });
            return None;
        }
        Some(other)
    }

    /// Why a process with this mark does not lock beside those with the other.
    pub(super) fn refusal(&self, other: ProviderKind) -> LockError {
        let own = self.own;
        LockError::misconfigured(format!(
            "the locks of other processes that use this database are held by `{other}`, and those of \
             this one would be by `{own}`, so that they would not exclude each other; give all the \
             same DATABASE_URL, REDIS_URL and LOCK_PROVIDER, or, for a planned switch, set \
             LOCK_SWITCH=allow"
        ))
    }
}
