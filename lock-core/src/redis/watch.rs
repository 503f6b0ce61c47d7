//! The address of a single server is looked at when one of its connections comes to another one, until it leads
//! to one master: see [`behind`](super::behind).

use std::sync::Arc;
use std::time::Duration;

use ::redis::ConnectionInfo;
use tokio::time::sleep;

use super::behind::{Seen, leave, look};
use super::shared::Shared;
use super::split::Behind;
use crate::outage::{Outage, SoFar};
use crate::panics::catch_async;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Until it is dropped.
pub(super) async fn watch_address(shared: Arc<Shared>, info: ConnectionInfo) {
    let mut outage = Outage::new();
    loop {
        shared.split.doubted().await;
        // It goes on with the next doubt, and grants nothing before that if there were two.
        if let Err(reason) = catch_async(settle(&shared, &info, &mut outage)).await {
            tracing::error!(
                reason,
                "what looks at the address of a Redis server panicked"
            );
            shared.split.doubt();
        }
        sleep(EVERY).await;
    }
}

/// Looks until the address leads to one master; the commands are to go there.
async fn settle(shared: &Shared, info: &ConnectionInfo, outage: &mut Outage) {
    loop {
        let seen = look(info, shared).await;
        let sights: Vec<_> = seen.iter().map(Seen::sight).collect();
        leave(seen, &shared.settings).await;
        match shared.split.saw(info.addr(), &sights) {
            Behind::Two => {
                let reason = shared.split.error().map(|error| error.to_string());
                outage.failed(|SoFar { failures, lasting }| {
                    tracing::error!(
                        reason,
                        failures,
                        lasting,
                        "no lock is granted while a Redis address leads to two masters"
                    );
                });
            }
            Behind::One(run_id) => {
                outage.over(|lasted| {
                    tracing::info!(?lasted, "the Redis address leads to one master again");
                });
                if !shared.servers.is(0, &run_id) {
                    shared.split.follow();
                }
                shared.queues.signal.bell().notify_one();
                return;
            }
            // Nothing answers: an outage like any other.
            Behind::Nothing if !shared.split.is_on() => return,
            Behind::Nothing => {}
        }
        sleep(EVERY).await;
    }
}
