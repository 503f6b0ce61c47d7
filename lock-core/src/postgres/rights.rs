//! Tries the rights that a role needs when a process connects, and names those that are missing.

use std::future::ready;

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Either, PgConnection, Row};

use super::grants::{
    IN_TRANSACTION, LOCKS, MARK, RECOVERY, granted_to, lines, message, named_in, quoted, refused,
    trial,
};
use super::sqlstate::sqlstate;
use super::{errors, sql};
use crate::LockError;
use crate::outage::Repeated;

/// Who ends sessions and looks at them.
const AS_WHO_LOGGED_IN: &str = "SET LOCAL ROLE NONE";

/// Rights that are named in one error.
const NAMED: usize = 12;

/// Tries all rights without which nothing works, and those that are missed later: when a session was
/// lost, or has stood still.
///
/// # Errors
///
/// [`Misconfigured`](crate::LockErrorKind::Misconfigured), with the lines to run. What only recovery
/// lacks is a warning.
pub(super) async fn check(connection: &mut PgConnection, is_marked: bool) -> Result<(), LockError> {
    check_needed(connection, is_marked).await?;
    let lines = lines(RECOVERY);
    // As the role that logged in, which ends its own sessions.
    let [first, path] = sql::LOCAL;
    let missing = missing(connection, lines, &[first, path, AS_WHO_LOGGED_IN]).await;
    let missing = missing.map_err(errors::setting_up)?;
    if !missing.is_empty() {
        let role = role(connection, "SELECT session_user").await;
        static MISSING: Repeated = Repeated::new();
        let grants = granted_to(&missing, &role);
        MISSING.happened(&grants, |times| {
            tracing::warn!(
                grants, times,
                "the role lacks rights that recovery needs: when a session is lost or stands still, its \
                 locks are held until its lease ends; run the grants"
            );
        });
    }
    Ok(())
}

/// Statements that need all rights which [`check`] looks for, as one text for the end of a transaction
/// with our path: where it fails, something is missing.
pub(super) fn trials(is_marked: bool) -> String {
    let needed = needed(is_marked).into_iter().filter_map(trial);
    let recovery = lines(RECOVERY).into_iter().filter_map(trial);
    let all = needed.chain([AS_WHO_LOGGED_IN.to_owned()]).chain(recovery);
    all.collect::<Vec<_>>().join("; ")
}

fn needed(is_marked: bool) -> Vec<&'static str> {
    let mut needed = lines(LOCKS);
    if is_marked {
        needed.extend(lines(MARK));
    }
    needed
}

async fn check_needed(connection: &mut PgConnection, is_marked: bool) -> Result<(), LockError> {
    let missing = missing(connection, needed(is_marked), &sql::LOCAL).await;
    let missing = missing.map_err(errors::setting_up)?;
    if missing.is_empty() {
        return Ok(());
    }
    let role = role(connection, "SELECT current_user").await;
    Err(LockError::misconfigured(format!(
        "the role lacks rights that locks need; run as a superuser (the guide has all that can be needed under \
         Security, as has `lock_core::postgres::GRANTS`): `{}`",
        granted_to(&missing, &role)
    )))
}

/// The same after `error`, which came from a missing right.
pub(super) async fn name_missing(
    connection: &mut PgConnection,
    is_marked: bool,
    error: LockError,
) -> LockError {
    let named = check_needed(connection, is_marked).await.err();
    named.filter(LockError::is_misconfigured).unwrap_or(error)
}

/// The same for a lock in a transaction, by the role of which it is.
pub(super) async fn name_missing_in_transaction(
    connection: &mut PgConnection,
    error: sqlx::Error,
) -> LockError {
    // In the order of the statement, which ends at the first.
    let says = message(&error);
    let role = role(connection, "SELECT current_user").await;
    let lines = named_in(&says, &lines(IN_TRANSACTION));
    if lines.is_empty() {
        return refused(error);
    }
    LockError::misconfigured(format!(
        "the role of the transaction lacks a right; run as a superuser: `{}`",
        granted_to(&lines, &role)
    ))
    .with_source(error)
}

/// Those of `lines` whose right is missing. Each exchange finds one, and the last that there is none.
/// It is one transaction, which begins with the statements of `prepare`.
async fn missing(
    connection: &mut PgConnection,
    mut lines: Vec<&'static str>,
    prepare: &[&str],
) -> Result<Vec<&'static str>, sqlx::Error> {
    let mut missing = Vec::new();
    while !lines.is_empty() && missing.len() < NAMED {
        let trials = lines.iter().filter_map(|line| trial(line));
        let all: Vec<_> = prepare
            .iter()
            .map(|one| (*one).to_owned())
            .chain(trials)
            .collect();
        let mut done = 0;
        let answers = sqlx::raw_sql(AssertSqlSafe(all.join("; "))).fetch_many(&mut *connection);
        let tried = answers.try_for_each(|answer| {
            done += usize::from(matches!(answer, Either::Left(_)));
            ready(Ok(()))
        });
        let error = match tried.await {
            Ok(()) => break,
            Err(error) => error,
        };
        let Some(failed) = done.checked_sub(prepare.len()) else {
            return Err(error);
        };
        lines.drain(..failed.min(lines.len()));
        match sqlstate(&error).as_deref() {
            Some("42501") if !lines.is_empty() => missing.push(lines.remove(0)),
            // A version that does not have it does not need it.
            Some("42883" | "42P01") if !lines.is_empty() => drop(lines.remove(0)),
            _ => return Err(error),
        }
    }
    Ok(missing)
}

/// The role that lacks them.
async fn role(connection: &mut PgConnection, which: &'static str) -> String {
    let row = sqlx::raw_sql(which).fetch_one(connection).await;
    let role = row.and_then(|row| row.try_get::<String, _>(0));
    quoted(&role.unwrap_or_else(|_| "app".to_owned()))
}
