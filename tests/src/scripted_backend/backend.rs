//! The scripted backend, as the library sees it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lock_core::backend::{Attempt, Backend, Grant, Lease, LockRequest};
use lock_core::{LockError, LockName};
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::{Play, Stage};

static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

/// A connection to a [`ScriptedBackend`](super::ScriptedBackend).
#[derive(Debug)]
pub struct ScriptedBackendBackend {
    stage: Arc<Stage>,
    connection: usize,
}

impl ScriptedBackendBackend {
    pub(super) fn new(stage: Arc<Stage>) -> Self {
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        Self { stage, connection }
    }
}

impl Stage {
    /// Answers as the play says; `done` is what is asked for.
    async fn perform<T>(&self, play: Play, done: impl FnOnce() -> T) -> Result<T, LockError> {
        match play {
            Play::Answer => {}
            Play::Late(delay) => sleep(delay).await,
            Play::Hang => self.hang().await,
            Play::DoneThenLate(delay) => {
                let answer = done();
                sleep(delay).await;
                return Ok(answer);
            }
            Play::DoneThenHang => {
                let answer = done();
                self.hang().await;
                return Ok(answer);
            }
            Play::Fail(reason) => return Err(LockError::unavailable(reason)),
            Play::FailLate(delay, reason) => {
                sleep(delay).await;
                return Err(LockError::unavailable(reason));
            }
            Play::Misconfigured => return Err(LockError::misconfigured("on purpose")),
            Play::Panic => std::panic::resume_unwind(Box::new("on purpose")),
        }
        Ok(done())
    }

    async fn hang(&self) {
        let mut curtain = self.curtain.subscribe();
        // An error is the end of the scripted backend.
        let _ = curtain.changed().await;
    }
}

/// A try that is under way.
struct UnderWay<'a>(&'a ScriptedBackendBackend, &'a LockName);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.stage.table.answered(self.1, self.0.connection);
    }
}

impl Backend for ScriptedBackendBackend {
    type Grant = ScriptedBackendGrant;

    const KIND: &'static str = "scripted";
    const SHARED: bool = true;

    async fn try_acquire(
        &self,
        request: &LockRequest,
    ) -> Result<Attempt<ScriptedBackendGrant>, LockError> {
        let name = request.name();
        self.stage.table.asked(name, self.connection);
        let _under_way = UnderWay(self, name);
        // A grant that is not received is dropped with the answer, and so given back.
        let take = || match self.stage.table.take(request) {
            Attempt::Granted((number, lease)) => Attempt::Granted(ScriptedBackendGrant {
                stage: Arc::clone(&self.stage),
                name: name.clone(),
                number,
                lease,
                released: false,
            }),
            Attempt::Held { retry_in } => Attempt::Held { retry_in },
        };
        self.stage.perform(self.stage.tries.next(), take).await
    }

    fn changed(&self, _: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        self.stage.table.changed()
    }

    async fn health(&self) -> Result<(), LockError> {
        self.stage.perform(self.stage.health.next(), || ()).await
    }
}

/// A lock that a scripted backend has granted.
#[derive(Debug)]
pub struct ScriptedBackendGrant {
    stage: Arc<Stage>,
    name: LockName,
    number: u64,
    lease: Lease,
    released: bool,
}

impl ScriptedBackendGrant {
    /// The release, as it is played; it goes on also when it is not awaited.
    fn start_release(&mut self) -> impl Future<Output = Result<(), LockError>> + Send + use<> {
        self.released = true;
        let (stage, name, number) = (Arc::clone(&self.stage), self.name.clone(), self.number);
        async move {
            let play = stage.releases.next();
            let ours = stage
                .perform(play, || stage.table.free(&name, number))
                .await?;
            if ours {
                Ok(())
            } else {
                Err(LockError::lost("it was not ours any more"))
            }
        }
    }
}

impl Grant for ScriptedBackendGrant {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    async fn release(mut self) -> Result<(), LockError> {
        tokio::spawn(self.start_release())
            .await
            .expect("a release does not panic")
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        let stage = Arc::clone(&self.stage);
        async move {
            let play = stage.tokens.next();
            stage.perform(play, || stage.table.token()).await
        }
    }

    fn hand_over(&mut self) -> bool {
        self.stage.hands_over.load(Ordering::Relaxed)
    }
}

impl Drop for ScriptedBackendGrant {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let release = self.start_release();
        let is_played = Handle::try_current().is_ok_and(|at| !at.spawn(release).is_finished());
        if !is_played {
            // Without a runtime, or in one that ends, there is no time to play with either.
            self.stage.table.free(&self.name, self.number);
        }
    }
}
