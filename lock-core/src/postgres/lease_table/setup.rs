//! The table: makes it, and refuses what is not it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgDatabaseError, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row};

use super::as_it_is::{AsItIs, look, read_elsewhere};
use super::identity::Identity;
use super::key::RowKey;
use super::literal::Name;
use super::names::VERSION;
use super::sql::Of;
use super::statements::Statements;
use crate::LockError;
use crate::postgres::errors::lacks_right;
use crate::postgres::pooler_words;
use crate::postgres::sqlstate::sqlstate;

/// The oldest server that has what the statements need.
const OLDEST: i32 = 140_000;

/// How long the columns that a table lacks wait for the transactions that use it: while they do, no other begins.
const WAITS: &str = "SET LOCAL lock_timeout = 500; ";

/// The transaction that makes a table. In a stricter one, which a role can have by default, a look does not see what
/// another process has made while this one waited for it.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// One process at a time makes a table, in whatever schema: the next sees it. A pair of numbers never meets the key of
/// a lock; these are arbitrary, and the same in every version.
const ALONE: &str = "SELECT pg_catalog.pg_advisory_xact_lock(1684827491, 3)";

/// What the cause of an error follows, in a line that is no SQL to those who paste what is above.
const WHY: &str = "-- what the server says";

/// Which table the locks are in, and whether it is made where it is missing.
#[derive(Clone, Debug)]
pub struct Setup {
    schema: Option<String>,
    table: String,
    create: bool,
}

/// A table that was found to be one of locks.
#[derive(Clone, Debug)]
pub struct Table(Arc<Found>);

#[derive(Debug)]
struct Found {
    /// Schema and table, quoted.
    name: String,
    identity: Identity,
    statements: Statements,
}

impl Table {
    pub(super) fn new(name: String, identity: Identity) -> Self {
        let statements = Statements::of(&Of {
            table: &name,
            identity,
        });
        Self(Arc::new(Found {
            name,
            identity,
            statements,
        }))
    }

    pub(super) fn of(&self) -> Of<'_> {
        Of {
            table: &self.0.name,
            identity: self.0.identity,
        }
    }

    pub(super) fn statements(&self) -> &Statements {
        &self.0.statements
    }

    /// Schema and table, quoted.
    pub(super) fn name(&self) -> &str {
        &self.0.name
    }
}

impl Setup {
    /// The table of this name, which may begin with a schema and a dot; without one it is looked for, and made,
    /// where the `search_path` of the role says, if no other schema has a table of locks of this name.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) where this cannot be a name.
    pub fn new(table: &str, create: bool) -> Result<Self, LockError> {
        let (schema, table) = match table.split_once('.') {
            Some((schema, table)) => (Some(schema.to_owned()), table),
            None => (None, table),
        };
        // PostgreSQL cuts longer names off, and schemas that begin so are its own or end with a session.
        let is_name = |name: &str| (1..=63).contains(&name.len()) && !name.contains(['\0', '.']);
        let is_schema = |name: &str| is_name(name) && !name.starts_with("pg_");
        if !is_name(table) || !schema.as_deref().is_none_or(is_schema) {
            return Err(LockError::misconfigured(
                "the table of locks is a name of 1 to 63 bytes, which may follow the name of a schema that \
                 does not begin with `pg_` and a dot, as in `locks.leases`",
            ));
        }
        Ok(Self {
            schema,
            table: table.to_owned(),
            create,
        })
    }

    fn name(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", Name(schema), Name(&self.table)),
            None => Name(&self.table).to_string(),
        }
    }

    /// What makes the table, for migrations, or adds what one of an earlier version lacks. Running it again does nothing.
    ///
    /// The columns of readers are added in either case, so that they stand in one order. A process of the earlier version
    /// goes on with the table: its statements do not name them, and find a lock that readers hold to be held.
    ///
    /// A page of the table is filled by half, so that a row that changes stays on its page and in no index; that
    /// is why nothing but the key is indexed.
    #[must_use]
    pub fn sql(&self) -> String {
        sql(&self.name())
    }

    /// Looks for the table, makes it where it is missing, and finds out how its server is told from others.
    /// `lease` is the longest that the caller will ask for.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured), with what to do: a standby, an old server, a
    /// table that is missing or is another, a name that other schemas have as well, rights.
    /// [`Unavailable`](crate::LockErrorKind::Unavailable): the server did not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the whole table or none.
    pub async fn open(
        &self,
        connection: &mut PgConnection,
        lease: Duration,
    ) -> Result<Table, LockError> {
        let found = match self.look(connection).await? {
            Some(found) => found,
            None => self.make(connection).await?,
        };
        let found = match found.is_former() {
            true => self.add_columns(connection, found).await?,
            false => found,
        };
        if let Some(wrong) = found.wrong() {
            return Err(LockError::misconfigured(wrong));
        }
        let identity = self.introduce(connection, &found.name, lease).await?;
        Ok(Table::new(found.name, identity))
    }

    async fn make(&self, connection: &mut PgConnection) -> Result<AsItIs, LockError> {
        if !self.create {
            return Err(LockError::misconfigured(format!(
                "the table of locks {} is missing; run:\n{}",
                self.name(),
                self.sql()
            )));
        }
        match self.make_alone(connection).await {
            Ok(made) => Ok(made),
            // A migration may have made it meanwhile, which can be the error.
            Err(error) => self.look(connection).await.ok().flatten().ok_or(error),
        }
    }

    /// Makes it, unless there is one when this process has its turn.
    async fn make_alone(&self, connection: &mut PgConnection) -> Result<AsItIs, LockError> {
        let mut tx = connection.begin_with(BEGIN).await.map_err(refused)?;
        ask(&mut tx, ALONE.to_owned()).await.map_err(refused)?;
        if let Some(found) = self.look(&mut tx).await? {
            return Ok(found);
        }
        let made = ask(&mut tx, self.sql()).await;
        made.map_err(|error| self.not_made(error))?;
        let made = self.look(&mut tx).await?.ok_or_else(|| {
            LockError::misconfigured(
                "the `search_path` of the role does not find the table of locks where it is made; name its \
                 schema",
            )
        })?;
        tx.commit().await.map_err(refused)?;
        Ok(made)
    }

    fn not_made(&self, error: sqlx::Error) -> LockError {
        let says = match sqlstate(&error).as_deref() {
            Some("3F000") => match &self.schema {
                Some(schema) => format!(
                    "there is no schema for the table of locks; let a role that may run this, and grant this role USAGE \
                     on it, and SELECT, INSERT, UPDATE and DELETE on the table:\nCREATE SCHEMA {};\n{}\n{WHY}",
                    Name(schema),
                    self.sql()
                ),
                None => "the `search_path` of the role leads to no schema in which the table of locks could be made; \
                         name one, as in `locks.distributed_lock_leases`"
                    .to_owned(),
            },
            Some("42501" | "25006") => format!(
                "this role may not make the table of locks {} here; let one that may run this, and grant \
                 this role SELECT, INSERT, UPDATE and DELETE on it:\n{}\n{WHY}",
                self.name(),
                self.sql()
            ),
            _ => return refused(error),
        };
        LockError::misconfigured(says).with_source(error)
    }

    /// Gives a table without readers what it lacks; its locks stay as they are.
    async fn add_columns(
        &self,
        connection: &mut PgConnection,
        former: AsItIs,
    ) -> Result<AsItIs, LockError> {
        // Another session may look elsewhere than the one that has found it.
        let sql = sql(&former.name);
        let run = || format!("let a role that owns it run this:\n{sql}\n{WHY}");
        if !self.create {
            return Err(LockError::misconfigured(format!(
                "the table of locks {} lacks the columns of readers; let a role that owns it run this:\n{sql}",
                former.name
            )));
        }
        let added = ask(connection, format!("{WAITS}{sql}")).await;
        // Another process may have added them meanwhile.
        match (self.look(connection).await?, added) {
            (Some(found), _) if !found.is_former() => Ok(found),
            (_, Ok(_)) => Ok(former),
            (_, Err(error)) => Err(match sqlstate(&error).as_deref() {
                Some("42501" | "25006") => LockError::misconfigured(format!(
                    "this role may not add the columns of readers to the table of locks {}; {}",
                    former.name,
                    run()
                )),
                Some("55P03") => LockError::unavailable(format!(
                    "the table of locks {} lacks the columns of readers, which could not be added while \
                     transactions use it, such as one that is fenced by a lock; try again, or {}",
                    former.name,
                    run()
                )),
                _ => return Err(refused(error)),
            }
            .with_source(error)),
        }
    }

    /// The table as it is, if there is one. Refuses a name that leads other sessions to another table.
    async fn look(&self, connection: &mut PgConnection) -> Result<Option<AsItIs>, LockError> {
        let alone = self.schema.is_none().then_some(&*self.table);
        let looked = ask(connection, look(&self.name(), alone)).await;
        let rows = looked.map_err(refused)?;
        let row = rows.first().ok_or_else(unreadable)?;
        let version: i32 = row.try_get(0).map_err(refused)?;
        if version < OLDEST {
            return Err(LockError::misconfigured(
                "the server is older than PostgreSQL 14; use 14 or newer",
            ));
        }
        if row.try_get(1).map_err(refused)? {
            return Err(LockError::misconfigured(
                "the server is a standby, which takes no locks; give the address of the primary",
            ));
        }
        let elsewhere = read_elsewhere(row).map_err(refused)?;
        if !elsewhere.is_empty() {
            return Err(self.is_elsewhere(&elsewhere));
        }
        AsItIs::read(row).map_err(refused)
    }

    /// Other schemas have a table of locks of this name.
    fn is_elsewhere(&self, schemas: &[String]) -> LockError {
        let (table, schemas) = (&self.table, schemas.join("`, `"));
        LockError::misconfigured(format!(
            "this database has a table of locks `{table}` in other schemas than the `search_path` of this session \
             leads to: `{schemas}`; processes with different tables do not exclude each other. Name the schema on \
             all instances, in code `.table(\"schema.{table}\")`, or by the setting `LOCK_TABLE=schema.{table}`"
        ))
    }

    /// Notes which server this is, if no client has, and takes what was noted for how to tell it from others:
    /// all clients have to see the same.
    async fn introduce(
        &self,
        connection: &mut PgConnection,
        table: &str,
        lease: Duration,
    ) -> Result<Identity, LockError> {
        let of = |identity| Of { table, identity }.introduce(lease);
        let timeline = ask(connection, of(Identity::Timeline)).await;
        let (rows, unreadable_timeline) = match timeline {
            Ok(rows) => (rows, None),
            Err(error)
                if matches!(
                    sqlstate(&error).as_deref(),
                    Some("42501" | "42883" | "0A000")
                ) =>
            {
                let rows = ask(connection, of(Identity::Start)).await;
                (rows.map_err(refused)?, Some(error))
            }
            Err(error) => return Err(refused(error)),
        };
        let Some(row) = rows.last() else {
            return Err(LockError::misconfigured(format!(
                "the table of locks lacks the row of its server; run:\n{}",
                sql(table)
            )));
        };
        let noted: &str = row.try_get(0).map_err(refused)?;
        match (noted.contains(" timeline "), unreadable_timeline) {
            (true, None) => Ok(Identity::Timeline),
            (true, Some(error)) => Err(LockError::misconfigured(
                "this role may not read the timeline of the server, by which other clients tell it from those \
                 before; grant it EXECUTE on pg_walfile_name(pg_lsn) and pg_current_wal_lsn()",
            )
            .with_source(error)),
            (false, _) => Ok(Identity::Start),
        }
    }
}

/// What makes a table of this name, which is quoted, or adds what it lacks.
fn sql(table: &str) -> String {
    let server = RowKey::SERVER;
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (
    key pg_catalog.uuid PRIMARY KEY,
    namespace pg_catalog.text NOT NULL,
    name pg_catalog.text NOT NULL,
    owner pg_catalog.uuid,
    holder pg_catalog.text NOT NULL,
    lease pg_catalog.int4 NOT NULL,
    expires pg_catalog.timestamptz NOT NULL,
    acquired pg_catalog.timestamptz NOT NULL,
    token pg_catalog.int8 NOT NULL,
    awaited pg_catalog.bool NOT NULL DEFAULT false
) WITH (fillfactor = 50);
ALTER TABLE {table}
    ADD COLUMN IF NOT EXISTS readers pg_catalog.uuid[],
    ADD COLUMN IF NOT EXISTS readers_until pg_catalog.timestamptz[],
    ADD COLUMN IF NOT EXISTS readers_since pg_catalog.timestamptz[],
    ADD COLUMN IF NOT EXISTS readers_by pg_catalog.text[],
    ADD COLUMN IF NOT EXISTS wanted_by pg_catalog.uuid,
    ADD COLUMN IF NOT EXISTS wanted_until pg_catalog.timestamptz;
COMMENT ON TABLE {table} IS '{VERSION}';
INSERT INTO {table} (key, namespace, name, holder, lease, expires, acquired, token)
VALUES ('{server}', '', 'server', '', 0, pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp(), 0)
ON CONFLICT (key) DO NOTHING;"
    )
}

/// One exchange.
async fn ask(connection: &mut PgConnection, sql: String) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await
}

fn unreadable() -> LockError {
    LockError::unavailable(
        "the server, or a proxy in front of it, gave an answer that cannot be read",
    )
}

fn refused(error: sqlx::Error) -> LockError {
    let database = error.as_database_error();
    let said = database.and_then(|said| said.try_downcast_ref::<PgDatabaseError>());
    let by_pooler = said.and_then(pooler_words::refused);
    let refused = by_pooler.unwrap_or_else(|| match sqlstate(&error).as_deref() {
        Some("42501") => lacks_right(),
        _ => LockError::unavailable(
            "the server did not do what was asked to set up the table of locks; the source of this error says \
             why",
        ),
    });
    refused.with_source(error)
}
