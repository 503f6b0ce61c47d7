//! What is known of the servers, asked anew when it is old.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::{Health, LockProvider, ServerHealth};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Monitor {
    locks: LockProvider,
    max_age: Duration,
    last: Mutex<Option<Look>>,
    /// Locked for as long as the servers are asked.
    asking: Arc<AsyncMutex<()>>,
}

#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    health: Arc<Health>,
}

impl Monitor {
    pub(super) fn new(locks: LockProvider, max_age: Duration) -> Self {
        Self {
            locks,
            max_age,
            last: Mutex::default(),
            asking: Arc::default(),
        }
    }

    /// How the servers are, or were when they were asked last.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was asked is answered to the next.
    pub(super) async fn look(self: &Arc<Self>) -> Arc<Health> {
        let entered = Instant::now();
        if let Some(look) = self.last()
            && look.at.elapsed() < self.max_age
        {
            return look.health;
        }
        if let Ok(turn) = Arc::clone(&self.asking).try_lock_owned() {
            // A prober that hangs up does not end it: the next one gets what came of it.
            tokio::spawn(Arc::clone(self).ask(turn));
        }
        // Free when the answer is in, and when the runtime of who asked has ended.
        let turn = Arc::clone(&self.asking).lock_owned().await;
        match self.last() {
            Some(look) if look.at >= entered => look.health,
            _ => Arc::clone(self).ask(turn).await,
        }
    }

    async fn ask(self: Arc<Self>, _turn: OwnedMutexGuard<()>) -> Arc<Health> {
        let health = Arc::new(self.locks.health().await);
        let look = Look {
            at: Instant::now(),
            health: Arc::clone(&health),
        };
        let before = self.lock().replace(look);
        tell_changes(before.as_ref().map(|look| &*look.health), &health);
        health
    }

    fn last(&self) -> Option<Look> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Look>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs what went down and what came back.
fn tell_changes(before: Option<&Health>, now: &Health) {
    let down: BTreeSet<_> = (before.into_iter())
        .flat_map(Health::servers)
        .filter(|server| !server.is_up())
        .map(ServerHealth::name)
        .collect();
    for server in now.servers() {
        let (name, role) = (server.name(), server.role().as_str());
        match server.error() {
            Some(error) if !down.contains(name) => {
                let cause = std::error::Error::source(error);
                tracing::warn!(server = name, role, %error, cause, "a server is down");
            }
            None if down.contains(name) => {
                tracing::info!(server = name, role, "a server is up again");
            }
            _ => {}
        }
    }
}
