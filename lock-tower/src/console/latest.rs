//! The last look at the store: one at a time, for all who ask.
//!
//! A look is a task of its own: it goes on when the client that has caused it leaves, and its answer is there for the
//! next. So clients that come and go ask a slow store no more often than one that stays.

use std::sync::Arc;
use std::time::Duration;

use lock_core::LockProvider;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::store::Store;

/// For how many times as long as it took an answer is shown again, and the bounds of that: the slower a store, the
/// more seldom it is asked.
const KEPT: u32 = 3;
const KEPT_AT_LEAST: Duration = Duration::from_secs(1);
const KEPT_AT_MOST: Duration = Duration::from_secs(60);

/// An error is not shown for longer: the store may be there again.
const FAILED_AT_MOST: Duration = Duration::from_secs(5);

/// How long a look is waited for while there is nothing to show of the store, or only what is older than it keeps.
const FIRST: Duration = Duration::from_secs(2);

/// How long another one is waited for before the answer before it is shown.
const SOON: Duration = Duration::from_millis(500);

/// What the store has said last, and whether it is asked now.
pub(super) struct Latest {
    locks: LockProvider,
    has_names: bool,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    last: Option<Look>,
    /// When the look began that is under way.
    since: Option<Instant>,
}

/// An answer of the store.
#[derive(Clone)]
pub(super) struct Look {
    pub(super) store: Arc<Store>,
    took: Duration,
    ended: Instant,
}

impl Look {
    /// How long ago it ended.
    pub(super) fn age(&self) -> Duration {
        self.ended.elapsed()
    }

    fn is_fresh(&self) -> bool {
        let kept = self.took.saturating_mul(KEPT);
        let at_most = match self.store.error {
            Some(_) => FAILED_AT_MOST,
            None => KEPT_AT_MOST,
        };
        self.age() < kept.clamp(KEPT_AT_LEAST, at_most)
    }

    /// Whether it can be shown in place of one that is under way.
    fn is_recent(&self) -> bool {
        self.age() < KEPT_AT_MOST
    }
}

impl Latest {
    pub(super) fn new(locks: LockProvider, has_names: bool) -> Self {
        Self {
            locks,
            has_names,
            state: watch::Sender::default(),
        }
    }

    /// What the store has said last, or says now if that is soon; `None` while it has not answered at all.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a look that has begun goes on.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Look> {
        let mut answers = self.state.subscribe();
        if let Some(began) = self.begin_unless_fresh() {
            let has_recent = self
                .state
                .borrow()
                .last
                .as_ref()
                .is_some_and(Look::is_recent);
            // Counted from its beginning: a look that is known to be slow is not waited for again.
            let until = began + if has_recent { SOON } else { FIRST };
            let ended = answers.wait_for(|state| state.since.is_none());
            let _ = timeout_at(until, ended).await.map(drop);
        }
        self.state.borrow().last.clone()
    }

    /// Begins a look, unless the last one is fresh or one is under way. Gives when that one began.
    fn begin_unless_fresh(self: &Arc<Self>) -> Option<Instant> {
        let mut begins = None;
        self.state.send_if_modified(|state| {
            let is_fresh = state.last.as_ref().is_some_and(Look::is_fresh);
            if state.since.is_none() && !is_fresh {
                begins = Some(Instant::now());
                state.since = begins;
            }
            // Only ends are waited for.
            false
        });
        if let Some(began) = begins {
            let look = UnderWay {
                latest: Arc::clone(self),
                began,
                store: None,
            };
            tokio::spawn(async move {
                let latest = &look.latest;
                let store = Store::ask(&latest.locks, latest.has_names).await;
                look.answered(store);
            });
        }
        self.state.borrow().since
    }
}

/// A look. Its drop ends it, also by a panic and by the end of the runtime: the next one can begin.
struct UnderWay {
    latest: Arc<Latest>,
    began: Instant,
    store: Option<Store>,
}

impl UnderWay {
    fn answered(mut self, store: Store) {
        self.store = Some(store);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let store = self.store.take().unwrap_or_else(Store::broken_off);
        let look = Look {
            store: Arc::new(store),
            took: self.began.elapsed(),
            ended: Instant::now(),
        };
        self.latest.state.send_modify(|state| {
            state.last = Some(look);
            state.since = None;
        });
    }
}
