//! Connects to the store that the environment and the command line name, and leaves it.

use std::path::Path;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use lock_core::{LockError, LockProvider, LockSettings};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::cli::Store;
use crate::ending::with_causes;
use crate::store::settings;

/// What is left to do in the store when a command has ended: an exchange or two.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// What reading a file may take also where the wait is shorter: a moment.
const READS_WITHIN: Duration = Duration::from_secs(1);

/// Between tries to reach a store. Commands that cron starts together on many machines come apart.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_secs(2))
    .without_max_times()
    .with_jitter();

/// Connects as a service with the same settings does.
pub(crate) async fn connect(store: &Store) -> Result<LockProvider, LockError> {
    LockProvider::connect(settings(store).await?).await
}

/// The same, and again for as long as `wait` while the reason is one that can pass by itself: a server that
/// starts, or one whose connections are all in use. Each such reason is passed to `not_reached`. A file with the URL is read
/// within the wait, if there is one.
///
/// # Cancel safety
///
/// Cancel safe: what was connected is closed.
pub(crate) async fn connect_within(
    store: &Store,
    wait: Option<Duration>,
    not_reached: impl Fn(&LockError),
) -> Result<LockProvider, LockError> {
    let begun = Instant::now();
    let settings = settings_within(store, wait).await?;
    let wait = wait.unwrap_or_default();
    // A wait that no clock can count is for ever.
    let until = begun.checked_add(wait);
    // The bounds of the library are those of the first try.
    let mut connected = LockProvider::connect(settings.clone()).await;
    let mut delays = BACKOFF.build();
    loop {
        let last = match connected {
            Err(error) if error.is_unavailable() && !wait.is_zero() => error,
            connected => return connected,
        };
        tracing::info!(
            error = with_causes(&last),
            "the store is not reached yet, and is tried again"
        );
        not_reached(&last);
        let pause = delays.next().unwrap_or_default();
        let next = async {
            sleep(pause).await;
            LockProvider::connect(settings.clone()).await
        };
        connected = match until {
            Some(until) => match timeout_at(until, next).await {
                Ok(connected) => connected,
                Err(_) => return Err(last.with_waited(begun.elapsed())),
            },
            None => next.await,
        };
    }
}

/// The settings, with a file that has the URL read within the wait.
async fn settings_within(store: &Store, wait: Option<Duration>) -> Result<LockSettings, LockError> {
    let Some(wait) = wait else {
        return settings(store).await;
    };
    let begun = Instant::now();
    let read = timeout(wait.max(READS_WITHIN), settings(store)).await;
    read.unwrap_or_else(|_| Err(unread(store).with_waited(begun.elapsed())))
}

/// The file of the URL was not read in time.
fn unread(store: &Store) -> LockError {
    let file = store.url_file.as_deref().unwrap_or_else(|| Path::new(""));
    LockError::unavailable(format!(
        "--url-file {} was not read within --wait: no process writes to that pipe, or its disk does not answer",
        file.display()
    ))
}

/// Releases and closes what is open, in bounded time.
pub(crate) async fn close(locks: &LockProvider) {
    locks.shutdown(CLOSES_WITHIN).await;
}
