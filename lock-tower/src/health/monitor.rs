//! What is known of the servers, asked anew when it is old.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::__private::{Server, servers};
use lock_core::{LockProvider, ServerHealth, ServerRole};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout};

/// So long a readiness probe waits for a new answer: half of what Kubernetes gives it by default.
const PATIENCE: Duration = Duration::from_millis(500);

/// So old may be an answer that is given in the place of a new one: a few probes, whose period is 10 s
/// by default.
const KEPT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Monitor(Vec<Arc<Watched>>);

/// A server, and what it has answered last.
#[derive(Debug)]
struct Watched {
    server: Server,
    max_age: Duration,
    last: Mutex<Option<Look>>,
    /// Locked for as long as the server is asked.
    asking: Arc<AsyncMutex<()>>,
}

#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    health: Arc<ServerHealth>,
}

/// What is known of a server.
#[derive(Debug)]
pub(super) struct State {
    pub(super) name: &'static str,
    pub(super) role: ServerRole,
    /// `None` when it has not answered lately, and the answer to a question is not in.
    pub(super) health: Option<Arc<ServerHealth>>,
}

impl Monitor {
    pub(super) fn new(locks: &LockProvider, max_age: Duration) -> Self {
        let watch = |server| Watched {
            server,
            max_age,
            last: Mutex::default(),
            asking: Arc::default(),
        };
        let servers = servers(locks).into_iter();
        Self(servers.map(|server| Arc::new(watch(server))).collect())
    }

    /// How the servers are, once all of them have answered, or had the time to.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was asked is answered to the next.
    pub(super) async fn look(&self) -> Vec<State> {
        let entered = self.ask();
        let mut states = Vec::new();
        for server in &self.0 {
            states.push(server.state(Some(server.fresh(entered).await)));
        }
        states
    }

    /// The same within [`PATIENCE`], after which a server is as it was when it answered last. Those that
    /// the locks do not need are asked, and not waited for.
    pub(super) async fn look_soon(&self) -> Vec<State> {
        let entered = self.ask();
        let mut states = Vec::new();
        for server in &self.0 {
            let left = match server.server.role() {
                ServerRole::Locks => (entered + PATIENCE).saturating_duration_since(Instant::now()),
                _ => Duration::ZERO,
            };
            // Looks before it waits.
            let fresh = timeout(left, server.fresh(entered)).await.ok();
            states.push(server.state(fresh.or_else(|| server.known(KEPT))));
        }
        states
    }

    /// Asks those whose answer is old. Gives the time of the question.
    fn ask(&self) -> Instant {
        let now = Instant::now();
        for server in &self.0 {
            if server.known(server.max_age).is_none()
                && let Ok(turn) = Arc::clone(&server.asking).try_lock_owned()
            {
                server.start(turn);
            }
        }
        now
    }
}

impl Watched {
    fn state(&self, health: Option<Arc<ServerHealth>>) -> State {
        State {
            name: self.server.name(),
            role: self.server.role(),
            health,
        }
    }

    /// The last answer, if it is younger than that.
    fn known(&self, max_age: Duration) -> Option<Arc<ServerHealth>> {
        let look = self.lock().clone();
        let look = look.filter(|look| look.at.elapsed() < max_age)?;
        Some(look.health)
    }

    /// An answer that is not old, or has come since.
    async fn fresh(self: &Arc<Self>, entered: Instant) -> Arc<ServerHealth> {
        loop {
            if let Some(health) = self.known(self.max_age) {
                return health;
            }
            // Free when the answer is in, and when the runtime of the task that asked has ended.
            let turn = Arc::clone(&self.asking).lock_owned().await;
            let look = self.lock().clone();
            match look.filter(|look| look.at >= entered) {
                Some(look) => return look.health,
                None => self.start(turn),
            }
        }
    }

    /// Asks, also when the prober hangs up: the next one gets what came of it.
    fn start(self: &Arc<Self>, turn: OwnedMutexGuard<()>) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let health = Arc::new(this.server.clone().into_health().await);
            let look = Look {
                at: Instant::now(),
                health: Arc::clone(&health),
            };
            let before = this.lock().replace(look);
            drop(turn);
            tell_change(before.as_ref().map(|look| &*look.health), &health);
        });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Look>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs that a server went down, or came back.
fn tell_change(before: Option<&ServerHealth>, now: &ServerHealth) {
    let was_down = before.is_some_and(|before| !before.is_up());
    let (name, role) = (now.name(), now.role().as_str());
    match now.error() {
        Some(error) if !was_down => {
            let cause = std::error::Error::source(error);
            tracing::warn!(server = name, role, %error, cause, "a server is down");
        }
        None if was_down => tracing::info!(server = name, role, "a server is up again"),
        _ => {}
    }
}
