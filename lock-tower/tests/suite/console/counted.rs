//! A store whose listings are counted, and answered as the test says.

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use lock_core::backend::{Attempt, Backend, LockRequest};
use lock_core::memory::MemoryBackend;
use lock_core::{ListedLock, Listing, LockError, LockProvider};
use lock_tower::console;
use tokio::sync::watch;
use tokio::time::sleep;

/// How listings are answered.
#[derive(Clone, Debug)]
pub(super) enum Play {
    /// With these locks.
    Say(Vec<ListedLock>),
    /// With none, after this long.
    Late(Duration),
    /// With none, when the play changes.
    Hang,
    Panic,
}

/// A store in memory, but for its listings. Clones are the same one.
#[derive(Clone)]
pub(super) struct Counted {
    store: MemoryBackend,
    looks: Arc<AtomicUsize>,
    play: watch::Sender<Play>,
}

impl Counted {
    pub(super) fn new(play: Play) -> Self {
        Self {
            store: MemoryBackend::new(),
            looks: Arc::default(),
            play: watch::Sender::new(play),
        }
    }

    /// How often it was asked.
    pub(super) fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }

    /// From now on; what hangs ends.
    pub(super) fn play(&self, play: Play) {
        self.play.send_replace(play);
    }

    pub(super) fn provider(&self) -> LockProvider {
        LockProvider::new(self.clone())
    }

    /// Its page.
    pub(super) fn page(&self) -> Router {
        console::router(self.provider())
    }
}

impl Backend for Counted {
    type Grant = <MemoryBackend as Backend>::Grant;

    const KIND: &'static str = "counted";

    async fn try_acquire(&self, request: &LockRequest) -> Result<Attempt<Self::Grant>, LockError> {
        self.store.try_acquire(request).await
    }

    fn changed(&self, request: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        self.store.changed(request)
    }

    async fn list(&self, limit: usize) -> Result<Listing, LockError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let mut plays = self.play.subscribe();
        let play = plays.borrow_and_update().clone();
        let mut said = Vec::new();
        match play {
            Play::Say(locks) => said = locks,
            Play::Late(delay) => sleep(delay).await,
            Play::Hang if plays.changed().await.is_err() => pending().await,
            Play::Hang => {}
            Play::Panic => panic!("on purpose"),
        }
        Ok(Listing::new(said, limit))
    }

    async fn health(&self) -> Result<(), LockError> {
        self.store.health().await
    }
}
