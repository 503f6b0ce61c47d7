//! What is in front of a server, looked at when something is wrong: its name says more than what it did.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Connection, Error};
use tokio::time::timeout;

use super::checks::{ask, by_us};
use super::errors;
use super::steps::{Step, within};
use super::transaction::DatabaseIdentity;
use super::wire::Wire;
use crate::LockError;

/// A start that has failed is not held up for longer.
const NAMED_WITHIN: Duration = Duration::from_secs(1);

/// The same error, or that the two connections lead to two servers, each with locks of its own.
pub(super) async fn name_servers(wire: &mut Wire, error: LockError) -> LockError {
    if !error.is_misconfigured() {
        return error;
    }
    let homes = within(Step::Look, async {
        let ours = by_us(wire, DatabaseIdentity::asked()).await?;
        let theirs = ask(wire.witness(), DatabaseIdentity::asked()).await?;
        let home = |rows: Vec<PgRow>| {
            let row = rows.first().ok_or_else(errors::pooler)?;
            DatabaseIdentity::read(row).map_err(errors::setting_up)
        };
        Ok((home(ours)?, home(theirs)?))
    });
    match homes.await {
        Ok((ours, theirs)) if ours != theirs => errors::several_servers(),
        _ => error,
    }
}

/// The same error, or that Pgpool-II is in front, which alone has an answer to what is asked.
pub(super) async fn name_pgpool(options: &PgConnectOptions, error: LockError) -> LockError {
    if !error.is_misconfigured() || errors::is_login_refused(&error) {
        return error;
    }
    let asked = timeout(NAMED_WITHIN, async {
        let mut connection = PgConnection::connect_with(options).await?;
        let version = sqlx::raw_sql("SHOW pool_version")
            .fetch_all(&mut connection)
            .await?;
        drop(connection.close().await);
        Ok::<_, Error>(version)
    });
    match asked.await {
        Ok(Ok(version)) if !version.is_empty() => errors::pgpool().with_source(error),
        _ => error,
    }
}
