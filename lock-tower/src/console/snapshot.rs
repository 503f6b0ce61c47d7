//! What is shown, as of a moment.

use std::sync::Arc;
use std::time::Duration;

use lock_core::LockProvider;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::latest::Latest;
use super::local::Local;
use super::rows::millis;
use super::store::Store;

/// For how long a look at this instance is shown again.
const FRESH: Duration = Duration::from_secs(1);

/// All that is shown. `/locks.json` has these members.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    pub(super) backend: &'static str,
    #[serde(flatten)]
    pub(super) local: Local,
    pub(super) store: Store,
}

/// Where snapshots come from.
pub(super) struct Source {
    locks: LockProvider,
    has_names: bool,
    latest: Arc<Latest>,
    local: Mutex<Option<(Instant, Local)>>,
}

impl Source {
    pub(super) fn new(locks: LockProvider, has_names: bool) -> Self {
        Self {
            latest: Arc::new(Latest::new(locks.clone(), has_names)),
            locks,
            has_names,
            local: Mutex::const_new(None),
        }
    }

    /// What the store has said last, and what this instance knows now.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn take(&self) -> Snapshot {
        let store = match self.latest.take().await {
            Some(look) => Store {
                age_ms: Some(millis(look.age())),
                ..(*look.store).clone()
            },
            None => Store::unanswered(),
        };
        Snapshot {
            backend: self.locks.backend(),
            local: self.local().await,
            store,
        }
    }

    /// At most a second old: a look at all locks of a busy process is not made for each of many clients.
    async fn local(&self) -> Local {
        let mut last = self.local.lock().await;
        match &*last {
            Some((at, local)) if at.elapsed() < FRESH => local.clone(),
            _ => {
                let local = Local::of(&self.locks, self.has_names);
                *last = Some((Instant::now(), local.clone()));
                local
            }
        }
    }
}
