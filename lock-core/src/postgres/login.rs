//! Opens the two connections that a process needs while it connects.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};
use sqlx::{Connection, Error};
use tokio::time::{Instant, sleep};

use super::addresses::{self, Tried, Way};
use super::refused_login::logging_in;
use super::steps::{Step, within};
use crate::LockError;

/// What a login may take longer than the one before it, until what the server says of another is
/// looked at.
const SLACK: Duration = Duration::from_millis(100);

/// How long a login that is under way has after another was refused: it can have the last place itself.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// A login that was made.
pub(super) struct LoggedIn {
    pub(super) connection: PgConnection,
    /// In which way, for the next one.
    pub(super) way: Way,
    pub(super) took: Duration,
}

/// Logs in.
pub(super) async fn log_in(options: &PgConnectOptions, step: Step) -> Result<LoggedIn, LockError> {
    let started = Instant::now();
    let tried = Tried::default();
    let made = within(step, async {
        // Two logins: boxed, so that what awaits this stays small.
        let made = Box::pin(addresses::connect(options, &tried)).await;
        made.map_err(|error| logging_in(error, options, step == Step::LogInAgain))
    });
    let made = made.await.map_err(|error| tried.explain(error));
    let (connection, way) = made?;
    Ok(LoggedIn {
        connection,
        way,
        took: started.elapsed(),
    })
}

/// A connection that is read while it is idle, and that does not make itself anew: its pool is
/// its own and closed, so that all that is left of a lost connection is an error.
///
/// `usual` is how long a login took just now.
pub(super) async fn listen(
    options: &PgConnectOptions,
    usual: Duration,
) -> Result<PgListener, LockError> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(options.clone());
    let made = async {
        tokio::select! {
            biased;
            made = Box::pin(PgListener::connect_with(&pool)) => made,
            refused = Box::pin(refusal(options, usual * 2 + SLACK)) => Err(refused),
        }
    };
    let mut listener = within(Step::LogInAgain, async {
        made.await.map_err(|error| logging_in(error, options, true))
    })
    .await?;
    listener.ignore_pool_close_event(true);
    listener.eager_reconnect(false);
    // Closed from here on; the wait for its connection is not ours.
    drop(pool.close());
    Ok(listener)
}

/// Why the server lets in no connection, for as long as it lets in none. A pool keeps that to itself
/// and tries again where it is that no connection is left.
async fn refusal(options: &PgConnectOptions, pause: Duration) -> Error {
    loop {
        sleep(pause).await;
        match PgConnection::connect_with(options).await {
            Err(error) => {
                sleep(UNDER_WAY).await;
                return error;
            }
            Ok(connection) => drop(connection.close().await),
        }
    }
}
