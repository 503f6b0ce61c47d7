//! What is shown, as of a moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lock_core::{Activity, ListedLock, Listing, LockError, LockMode, LockName, LockProvider};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// For how long a look is shown again.
const FRESH: Duration = Duration::from_secs(1);

/// How long the store is waited for.
const WITHIN: Duration = Duration::from_secs(2);

/// How many locks the store is asked for.
const ASKED: usize = 10_000;

/// How many rows a table has at most.
pub(super) const SHOWN: usize = 200;

/// All that is shown. `/locks.json` has these members.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    pub(super) backend: &'static str,
    pub(super) taken_at: String,
    pub(super) store: Store,
    pub(super) here: Vec<Here>,
    pub(super) lost: Vec<Lost>,
    pub(super) templates: Vec<Template>,
}

/// What is held in the store.
#[derive(Debug, Default, Serialize)]
pub(super) struct Store {
    pub(super) error: Option<String>,
    pub(super) listed: usize,
    pub(super) complete: bool,
    /// Those that are held longest, first.
    pub(super) locks: Vec<Stored>,
    /// Those with the most locks, first.
    pub(super) instances: Vec<Instance>,
}

/// A lock, as the store knows it.
#[derive(Debug, Serialize)]
pub(super) struct Stored {
    pub(super) key: String,
    pub(super) name: Option<String>,
    pub(super) instance: Option<String>,
    pub(super) held_ms: Option<u64>,
    pub(super) opens_in_ms: Option<u64>,
    pub(super) mode: &'static str,
    pub(super) awaited: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(super) struct Instance {
    pub(super) instance: Option<String>,
    pub(super) locks: usize,
}

/// A lock that tasks of this instance hold or wait for.
#[derive(Debug, Serialize)]
pub(super) struct Here {
    pub(super) lock: String,
    pub(super) name: Option<String>,
    pub(super) held_ms: Option<u64>,
    pub(super) readers: usize,
    pub(super) waiting: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct Lost {
    pub(super) lock: String,
    pub(super) name: Option<String>,
    pub(super) at: String,
    pub(super) held_ms: u64,
    pub(super) reason: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Template {
    pub(super) lock: String,
    pub(super) held: u64,
    pub(super) waiting: u64,
    pub(super) contended: u64,
    pub(super) failed: u64,
}

/// The last look, for all that ask within a second.
pub(super) struct Latest {
    locks: LockProvider,
    has_names: bool,
    last: Mutex<Option<(Instant, Arc<Snapshot>)>>,
}

impl Latest {
    pub(super) fn new(locks: LockProvider, has_names: bool) -> Self {
        Self {
            locks,
            has_names,
            last: Mutex::const_new(None),
        }
    }

    /// The last look, or a new one. Those that come meanwhile wait for it; when its client leaves, the next of
    /// them looks.
    pub(super) async fn take(&self) -> Arc<Snapshot> {
        let mut last = self.last.lock().await;
        if let Some((at, snapshot)) = &*last
            && at.elapsed() < FRESH
        {
            return Arc::clone(snapshot);
        }
        let snapshot = Arc::new(self.look().await);
        *last = Some((Instant::now(), Arc::clone(&snapshot)));
        snapshot
    }

    async fn look(&self) -> Snapshot {
        let listed = timeout(WITHIN, self.locks.list(ASKED)).await;
        let listed = listed.unwrap_or_else(|_| Err(unanswered()));
        let activity = self.locks.activity();
        Snapshot {
            backend: self.locks.backend(),
            taken_at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            store: match listed {
                Ok(listing) => self.store(&listing),
                Err(error) => Store {
                    error: Some(error.to_string()),
                    ..Store::default()
                },
            },
            here: self.here(&activity),
            lost: self.lost(&activity),
            templates: templates(&activity),
        }
    }

    fn store(&self, listing: &Listing) -> Store {
        let mut locks: Vec<_> = listing.locks().iter().collect();
        // Where the store does not know since when, by the key: an order that stays.
        locks.sort_by_cached_key(|lock| {
            let since = lock.holder().since();
            (since.is_none(), since, lock.key())
        });
        let mut counts = BTreeMap::<_, usize>::new();
        for lock in &locks {
            *counts.entry(lock.holder().instance()).or_default() += 1;
        }
        let mut instances: Vec<_> = counts
            .into_iter()
            .map(|(instance, locks)| Instance {
                instance: instance.map(str::to_owned),
                locks,
            })
            .collect();
        instances.sort_by_key(|instance| std::cmp::Reverse(instance.locks));
        instances.truncate(SHOWN);
        let listed = locks.len();
        locks.truncate(SHOWN);
        Store {
            error: None,
            listed,
            complete: listing.is_complete(),
            locks: locks.into_iter().map(|lock| self.stored(lock)).collect(),
            instances,
        }
    }

    fn stored(&self, lock: &ListedLock) -> Stored {
        let holder = lock.holder();
        let now = SystemTime::now();
        let from_now = |until: SystemTime| until.duration_since(now).unwrap_or_default();
        Stored {
            key: self.key(lock).to_owned(),
            name: lock.name().and_then(|name| self.name(name)),
            instance: holder.instance().map(str::to_owned),
            held_ms: holder
                .since()
                .map(|since| millis(since.elapsed().unwrap_or_default())),
            opens_in_ms: holder.until().map(|until| millis(from_now(until))),
            mode: match holder.mode() {
                LockMode::Shared => "shared",
                _ => "exclusive",
            },
            awaited: lock.is_awaited(),
        }
    }

    /// The key: a hash, but for a store in memory, where it is the name.
    fn key<'a>(&self, lock: &'a ListedLock) -> &'a str {
        match lock.name() {
            Some(name) if !self.has_names && name.as_str() == lock.key() => name.label(),
            _ => lock.key(),
        }
    }

    fn here(&self, activity: &Activity) -> Vec<Here> {
        let mut locks: Vec<_> = activity.locks().iter().collect();
        // Held ones, the longest first, then lines, the longest first.
        locks.sort_by_key(|lock| std::cmp::Reverse((lock.held_for(), lock.waiting())));
        locks.truncate(SHOWN);
        let here = locks.into_iter().map(|lock| Here {
            lock: lock.name().label().to_owned(),
            name: self.name(lock.name()),
            held_ms: lock.held_for().map(millis),
            readers: lock.readers(),
            waiting: lock.waiting(),
        });
        here.collect()
    }

    fn lost(&self, activity: &Activity) -> Vec<Lost> {
        let lost = activity.losses().iter().map(|loss| Lost {
            lock: loss.name().label().to_owned(),
            name: self.name(loss.name()),
            at: humantime::format_rfc3339_millis(loss.at()).to_string(),
            held_ms: millis(loss.held_for()),
            reason: loss.reason().as_str(),
        });
        lost.collect()
    }

    /// The name, where names are shown.
    fn name(&self, name: &LockName) -> Option<String> {
        self.has_names.then(|| name.as_str().to_owned())
    }
}

/// Those with the most that wait, then the most that were refused, first.
fn templates(activity: &Activity) -> Vec<Template> {
    let mut labels: Vec<_> = activity.labels().iter().collect();
    labels.sort_by_key(|label| {
        let busy = std::cmp::Reverse((label.waiting(), label.contended(), label.held()));
        (busy, label.label())
    });
    labels.truncate(SHOWN);
    let templates = labels.into_iter().map(|label| Template {
        lock: label.label().to_owned(),
        held: label.held(),
        waiting: label.waiting(),
        contended: label.contended(),
        failed: label.failed(),
    });
    templates.collect()
}

fn unanswered() -> LockError {
    LockError::unavailable(format!("the store did not answer within {WITHIN:?}"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
