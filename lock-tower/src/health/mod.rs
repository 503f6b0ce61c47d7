//! Routes for probes: whether this process lives, and whether its locks can be acquired.
//!
//! | route | answers | for |
//! |---|---|---|
//! | `/health` | 200 or 503, and each server in JSON | people, dashboards |
//! | `/health/live` | 200, and touches no server | a liveness probe, which restarts what fails it |
//! | `/health/ready` | 200 or 503 | a readiness probe, which takes what fails it out of rotation |
//!
//! 503 is for a server that the locks need. One that is only configured, such as the database of a
//! service whose locks are in Redis, is in the answer and fails nothing.
//!
//! ```json
//! { "status": "degraded",
//!   "servers": [
//!     { "name": "redis", "role": "locks", "status": "up", "latency_ms": 0.214 },
//!     { "name": "postgres", "role": "reported", "status": "down", "latency_ms": 2000.411 } ] }
//! ```
//!
//! `status` is `up`, `degraded` (a server that is only reported is down), `down`, or `unknown` (no
//! server has answered lately, and the answer to a question is not in yet; that is 503 as well). Why a server is
//! down is in the log, at `warn`, once for each time; it can name hosts, and these routes are often
//! public.
//!
//! The servers are asked when a probe asks here, each at most once a second and one question at a time,
//! however many requests there are; no question takes a lock, or lasts longer than the provider waits
//! for an answer (2 s). `/health` waits for the answers of all. `/health/ready` waits half a second for
//! the server that the locks need and is given its last answer then, if that is younger than 30 s; for
//! the others it does not wait. So it is answered within the second that Kubernetes gives a probe.
//!
//! ```
//! use axum::Router;
//! use lock_core::{LockProvider, memory::MemoryBackend};
//! use lock_tower::health;
//!
//! let locks = LockProvider::new(MemoryBackend::new());
//! let app: Router = Router::new().merge(health::router(locks));
//! ```

mod monitor;
mod report;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use lock_core::LockProvider;

use self::monitor::Monitor;

/// The routes with the defaults of [`HealthRoutes`].
pub fn router<S>(locks: LockProvider) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    HealthRoutes::new(locks).into_router()
}

/// The routes, and what can be chosen about them.
///
/// # Default
///
/// - [`max_age`](Self::max_age): 1 s
/// - [`report_only`](Self::report_only): no
///
/// ```
/// use axum::Router;
/// use lock_core::{LockProvider, memory::MemoryBackend};
/// use lock_tower::health::HealthRoutes;
///
/// let locks = LockProvider::new(MemoryBackend::new());
/// // Most of this service works without locks: it stays in rotation when they do not.
/// let app: Router = HealthRoutes::new(locks).report_only().into_router();
/// ```
#[derive(Clone, Debug)]
#[must_use = "routes do nothing until they are in a router"]
pub struct HealthRoutes {
    locks: LockProvider,
    max_age: Duration,
    is_report: bool,
}

impl HealthRoutes {
    /// Routes over the servers of this provider.
    pub fn new(locks: LockProvider) -> Self {
        Self {
            locks,
            max_age: Duration::from_secs(1),
            is_report: false,
        }
    }

    /// For how long an answer of the servers is given again, without asking them.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// Tells in the body that a server is down, and answers 200 all the same: the trouble of a server
    /// that all instances share takes none of them out of rotation.
    pub fn report_only(mut self) -> Self {
        self.is_report = true;
        self
    }

    /// A router with the three routes, to be merged into another. Not below a lock, or behind
    /// authentication that a probe does not have.
    pub fn into_router<S>(self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let monitor = Arc::new(Monitor::new(&self.locks, self.max_age));
        let is_report = self.is_report;
        let soon = Arc::clone(&monitor);
        let show = move || {
            let monitor = Arc::clone(&monitor);
            async move { report::response(&monitor.look().await, is_report) }
        };
        let ready = move || {
            let monitor = Arc::clone(&soon);
            async move { report::response(&monitor.look_soon().await, is_report) }
        };
        Router::new()
            .route("/health", get(show))
            .route("/health/ready", get(ready))
            .route("/health/live", get(live))
    }
}

async fn live() -> Response {
    report::alive()
}
