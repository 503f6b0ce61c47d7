//! The campaign: acquire, lead, and again after a loss.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::sleep;

use super::candidate::Candidate;
use super::report;
use crate::provider::{Closing, Shared};
use crate::{DistributedLock, LockError, Lost};

/// How long one acquire waits. After that it is known whether the server answers, and told.
const ROUND: Duration = Duration::from_secs(10);

/// Between acquires that fail; within its wait an acquire has a backoff of its own.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(Duration::from_secs(1))
    .without_max_times()
    .with_jitter();

/// Spawns the campaign of this candidate, if none runs and there is a runtime to spawn it on.
pub(super) fn keep_campaigning(candidate: &Arc<Candidate>) {
    if let Ok(runtime) = Handle::try_current()
        && candidate.begin_campaign()
    {
        runtime.spawn(campaign(candidate));
    }
}

/// Campaigns until the candidate is gone, or the provider is shut down.
fn campaign(candidate: &Arc<Candidate>) -> impl Future<Output = ()> + Send + use<> {
    let mut alive = candidate.changes();
    let campaign = Campaign {
        candidate: Arc::downgrade(candidate),
        lock: candidate.lock().clone(),
        shared: Arc::clone(candidate.shared()),
        trouble: None,
    };
    async move {
        tokio::select! {
            _ = campaign.run() => {}
            () = gone(&mut alive) => {}
        }
    }
}

/// Completes when the last handle was dropped.
async fn gone<T>(alive: &mut watch::Receiver<T>) {
    while alive.changed().await.is_ok() {}
}

struct Campaign {
    /// Weak, so that the handles alone decide how long it lives.
    candidate: Weak<Candidate>,
    lock: DistributedLock,
    shared: Arc<Shared>,
    /// The delays between acquires, while they fail.
    trouble: Option<ExponentialBackoff>,
}

impl Campaign {
    /// `None` at its end.
    async fn run(mut self) -> Option<()> {
        loop {
            // The campaign of a runtime that has ended may have left a term.
            let term = self.candidate.upgrade()?.term();
            let lost = match term {
                Some(term) => term.guard.lost(),
                None => self.win().await?,
            };
            let reason = tokio::select! {
                biased;
                () = Closing::of(&self.shared) => None,
                reason = lost => Some(reason),
            };
            self.candidate.upgrade()?.leave_office();
            report::deposed(self.lock.name(), reason?);
        }
    }

    /// Acquires the lock, however long it takes.
    async fn win(&mut self) -> Option<Lost> {
        loop {
            match self.lock.acquire(ROUND).await {
                Ok(guard) => {
                    self.trouble = None;
                    let lost = guard.lost();
                    self.candidate.upgrade()?.take_office(guard);
                    report::elected(self.lock.name());
                    return Some(lost);
                }
                Err(error) if error.is_contended() => self.trouble = None,
                Err(error) if error.is_closed() => return None,
                Err(error) => self.recover_from(&error).await,
            }
        }
    }

    /// Tells of the first of several errors, and lets some time pass.
    async fn recover_from(&mut self, error: &LockError) {
        if self.trouble.is_none() {
            report::failed(error);
        }
        let delays = self.trouble.get_or_insert_with(|| BACKOFF.build());
        sleep(delays.next().unwrap_or(ROUND)).await;
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        if let Some(candidate) = self.candidate.upgrade() {
            candidate.campaign_ended();
        }
    }
}
