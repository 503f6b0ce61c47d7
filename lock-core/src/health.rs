//! Whether the servers are well.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::LockError;
use crate::panics::catch_async;

/// The answer to one question.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<(), LockError>> + Send>>;

/// A configured server that does not hold the locks; only its health is reported.
pub(crate) trait Companion: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;
    /// Checks its health.
    fn health(&self) -> Answer;
    /// Closes the connection to it; completes when that is done.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// How the servers are that the configuration names; the answer of
/// [`LockProvider::health`](crate::LockProvider::health).
///
/// ```
/// # use lock_core::{LockProvider, ServerRole, memory::MemoryBackend};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let store = MemoryBackend::new();
/// let locks = LockProvider::new(store.clone());
/// store.set_available(false);
///
/// let health = locks.health().await;
/// assert!(!health.is_up());
/// assert!(health.error().is_some_and(|error| error.is_unavailable()));
/// assert_eq!(health.servers()[0].role(), ServerRole::Locks);
/// # }
/// ```
#[derive(Debug)]
pub struct Health {
    servers: Vec<ServerHealth>,
}

impl Health {
    /// Asks all of them together.
    pub(crate) async fn join<F>(servers: impl IntoIterator<Item = F>) -> Self
    where
        F: Future<Output = ServerHealth> + Send + 'static,
    {
        let mut asked = JoinSet::new();
        for (position, health) in servers.into_iter().enumerate() {
            asked.spawn(async move { (position, health.await) });
        }
        let mut servers = asked.join_all().await;
        servers.sort_unstable_by_key(|(position, _)| *position);
        Self {
            servers: servers.into_iter().map(|(_, server)| server).collect(),
        }
    }

    /// Whether locks could be granted: every server that they need is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.error().is_none()
    }

    /// Why locks could not be granted, where they could not.
    #[must_use]
    pub fn error(&self) -> Option<&LockError> {
        let needed = self.servers.iter().filter(|server| server.is_needed());
        needed.filter_map(ServerHealth::error).next()
    }

    /// Each server; the one that holds the locks is the first.
    #[must_use]
    pub fn servers(&self) -> &[ServerHealth] {
        &self.servers
    }
}

/// How one server is.
#[derive(Debug)]
pub struct ServerHealth {
    name: &'static str,
    role: ServerRole,
    latency: Duration,
    result: Result<(), LockError>,
}

/// What a server is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerRole {
    /// It holds the locks.
    Locks,
    /// It is configured, and told about; the locks do not need it.
    Reported,
}

impl ServerRole {
    /// In one word: `locks`, `reported`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Locks => "locks",
            Self::Reported => "reported",
        }
    }
}

impl ServerHealth {
    /// Asks it, for at most so long.
    pub(crate) async fn ask(
        name: &'static str,
        role: ServerRole,
        answer: Answer,
        within: Duration,
    ) -> Self {
        let started = Instant::now();
        let answer = match timeout(within, catch_async(answer)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(reason)) => {
                Err(LockError::unavailable("the look at the server panicked").with_source(reason))
            }
            Err(_) => Err(LockError::unanswered_since(started, within)),
        };
        Self {
            name,
            role,
            latency: started.elapsed(),
            result: answer,
        }
    }

    /// What kind of server it is: `postgres`, `postgres-table`, `redis`, or, of locks without a server, `file`,
    /// `memory`, ..
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it is for.
    #[must_use]
    pub fn role(&self) -> ServerRole {
        self.role
    }

    /// Whether locks need it.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.role == ServerRole::Locks
    }

    /// Whether it answered, and is well.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.result.is_ok()
    }

    /// How long the answer took, or was waited for.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.latency
    }

    /// What is wrong with it, if anything is.
    #[must_use]
    pub fn error(&self) -> Option<&LockError> {
        self.result.as_ref().err()
    }
}
