//! A background job of which one instance at a time does the work.

use std::time::Duration;

use lock_core::{LockError, LockProvider, distributed_lock};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::work::{Receipt, Work};

/// How often each instance tries.
const EVERY: Duration = Duration::from_secs(2);

/// Cleans up until `stop`. A run that is under way is finished.
pub(crate) async fn run(locks: LockProvider, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // The next tick is the retry.
        if let Err(error) = clean_up(&locks).await {
            tracing::error!(%error, "tokens were not cleaned up");
        }
    }
}

/// Removes expired tokens; does nothing where another instance is at it.
#[distributed_lock("job:cleanup-tokens", skip, guard = held)]
async fn clean_up(locks: &LockProvider) -> Result<(), LockError> {
    let token = held.fencing_token().await?;
    let work = Work::default().perform(held.name().as_str(), token);
    let Receipt {
        started_ns,
        finished_ns,
        ..
    } = work.await;
    tracing::info!(%token, started_ns, finished_ns, "tokens were cleaned up");
    Ok(())
}
