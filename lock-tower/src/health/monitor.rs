//! What is known of the servers, asked anew when it is old.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lock_core::{Health, LockProvider, ServerHealth};
use tokio::sync::Mutex;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Monitor {
    locks: LockProvider,
    max_age: Duration,
    /// Locked for as long as the servers are asked: whoever comes meanwhile gets the same answer.
    last: Mutex<Option<Look>>,
}

#[derive(Debug)]
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
        }
    }

    /// How the servers are, or were a moment ago.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next in line asks.
    pub(super) async fn look(&self) -> Arc<Health> {
        let mut last = self.last.lock().await;
        if let Some(look) = &*last
            && look.at.elapsed() < self.max_age
        {
            return Arc::clone(&look.health);
        }
        let health = Arc::new(self.locks.health().await);
        let before = last.as_ref().map(|look| &*look.health);
        tell_changes(before, &health);
        *last = Some(Look {
            at: Instant::now(),
            health: Arc::clone(&health),
        });
        health
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
