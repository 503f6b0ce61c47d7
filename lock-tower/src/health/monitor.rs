//! What is known of the servers, asked anew when it is old.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lock_core::{Health, LockProvider, ServerHealth};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

/// How long a request waits for a new answer where there is an old one: whoever probes has a
/// deadline of its own, often a second.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Monitor {
    locks: LockProvider,
    max_age: Duration,
    last: watch::Sender<Option<Look>>,
    /// Locked for as long as the servers are asked.
    asking: Arc<Mutex<()>>,
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
            last: watch::Sender::new(None),
            asking: Arc::default(),
        }
    }

    /// How the servers are, or were when they were asked last.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was asked is answered to the next.
    pub(super) async fn look(self: &Arc<Self>) -> Arc<Health> {
        let mut looks = self.last.subscribe();
        let known = looks.borrow_and_update().clone();
        if let Some(look) = &known
            && look.at.elapsed() < self.max_age
        {
            return Arc::clone(&look.health);
        }
        self.ask();
        let patience = match known {
            Some(_) => PATIENCE,
            None => Duration::MAX,
        };
        let _ = timeout(patience, looks.changed()).await;
        let newest = looks.borrow().clone();
        match newest {
            Some(look) => look.health,
            // Whoever asked was ended with its runtime.
            None => Arc::new(self.locks.health().await),
        }
    }

    /// Asks the servers, unless that is under way. In a task of its own: a prober that hangs up does
    /// not end it, so that the next one hears what came of it.
    fn ask(self: &Arc<Self>) {
        let Ok(turn) = Arc::clone(&self.asking).try_lock_owned() else {
            return;
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let health = Arc::new(this.locks.health().await);
            let at = Instant::now();
            let look = Look { at, health };
            let before = this.last.send_replace(Some(look.clone()));
            drop(turn);
            tell_changes(before.as_ref().map(|look| &*look.health), &look.health);
        });
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
