//! Starts a driver again that has panicked.
//!
//! The bytes of a server and the application's logger can cause a panic. It costs the requests that were under
//! way and the leases, and not the thread.

use std::time::Duration;

use backon::ExponentialBuilder;
use tokio::time::{Instant, sleep};

use super::Driver;
use crate::LossReason;
use crate::outage::{Outage, SoFar};
use crate::panics::{catch, catch_async};
use crate::server::BackOff;
use crate::server::leased::WaiterTable;
use crate::server::protocol::Protocol;

/// A driver that ran for so long starts again after the shortest pause.
const STABLE: Duration = Duration::from_secs(10);

/// Between a panic and the next start.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(10))
    .with_max_delay(Duration::from_millis(500));

impl<P: Protocol> Driver<P> {
    /// Runs until the last user has left; `next` makes the driver that follows one that panicked. `store` is
    /// what users call the store.
    pub(crate) async fn run_with_restarts(self, store: &'static str, next: impl Fn() -> Self) {
        let users = self.users.clone();
        let mut driver = self;
        let mut pauses = BackOff::new(BACKOFF);
        let mut panics = Outage::new();
        loop {
            let started = Instant::now();
            let Err(reason) = catch_async(driver.run()).await else {
                return;
            };
            // What was asked of it is answered by now: its end dropped the replies.
            if started.elapsed() >= STABLE {
                pauses.reset();
                panics.over(|_| ());
            }
            // The wakers and the logger are the application's, and can panic as well.
            let _ = catch(|| {
                let locks = users.held.all().len();
                users.held.lose(LossReason::Disconnected, |_| true);
                users.waiters.wake_all();
                panics.failed(|SoFar { failures, lasting }| {
                    tracing::error!(
                        reason, locks, failures, lasting,
                        "the driver of {store} locks panicked: its locks are lost, and it connects again"
                    );
                });
            });
            sleep(pauses.pause()).await;
            driver = next();
        }
    }
}
