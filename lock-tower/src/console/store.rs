//! What the store says: the locks that are held in it, and by which instances.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::SystemTime;

use lock_core::{ListedLock, Listing, LockMode, LockProvider};
use serde::Serialize;

use super::rows::{SHOWN, millis};

/// How many locks the store is asked for.
const ASKED: usize = 10_000;

/// What is held in the store.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Store {
    pub(super) error: Option<String>,
    /// How long ago it said so.
    pub(super) age_ms: Option<u64>,
    pub(super) listed: usize,
    pub(super) complete: bool,
    /// Those that are held longest, first; then those that are released and kept closed.
    pub(super) locks: Vec<Stored>,
    /// Those with the most locks, first.
    pub(super) instances: Vec<Instance>,
    /// How many instances there are that it names.
    pub(super) instances_total: usize,
    /// Whether it is known which locks are held longest: it has listed all, and says since when.
    #[serde(skip)]
    pub(super) is_by_age: bool,
    /// Whether it has listed all, and named the instance of each.
    #[serde(skip)]
    pub(super) are_all_named: bool,
}

/// A lock, as the store knows it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Stored {
    pub(super) key: String,
    pub(super) name: Option<String>,
    pub(super) instance: Option<String>,
    pub(super) held_ms: Option<u64>,
    pub(super) opens_in_ms: Option<u64>,
    pub(super) mode: &'static str,
    pub(super) awaited: Option<bool>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Instance {
    pub(super) instance: Option<String>,
    pub(super) locks: usize,
}

impl Store {
    pub(super) async fn ask(locks: &LockProvider, has_names: bool) -> Self {
        match locks.list(ASKED).await {
            Ok(listing) => Self::of(&listing, has_names),
            Err(error) => Self::unknown(error.to_string()),
        }
    }

    /// It has not been heard of since this process began to ask.
    pub(super) fn unanswered() -> Self {
        Self::unknown("it has not answered yet; this page asks it again by itself".to_owned())
    }

    /// A look ended without an answer.
    pub(super) fn broken_off() -> Self {
        Self::unknown("the listing panicked, or its runtime has ended; see the log".to_owned())
    }

    fn unknown(error: String) -> Self {
        Self {
            error: Some(error),
            ..Self::default()
        }
    }

    fn of(listing: &Listing, has_names: bool) -> Self {
        let mut locks: Vec<_> = listing.locks().iter().collect();
        // Where the store does not know since when, by the key: an order that stays.
        locks.sort_by_cached_key(|lock| {
            let holder = lock.holder();
            let (since, is_kept) = (holder.since(), holder.until().is_some());
            (is_kept, since.is_none(), since, lock.key())
        });
        let has_age = |lock: &&ListedLock| {
            let holder = lock.holder();
            holder.since().is_some() || holder.until().is_some()
        };
        let is_by_age = listing.is_complete() && locks.iter().all(has_age);
        let mut counts = BTreeMap::<_, usize>::new();
        for lock in &locks {
            *counts.entry(lock.holder().instance()).or_default() += 1;
        }
        let are_all_named = listing.is_complete() && !counts.contains_key(&None);
        let instances_total = counts.keys().flatten().count();
        let mut instances: Vec<_> = counts
            .into_iter()
            .map(|(instance, locks)| Instance {
                instance: instance.map(str::to_owned),
                locks,
            })
            .collect();
        instances.sort_by_key(|instance| Reverse(instance.locks));
        instances.truncate(SHOWN);
        let listed = locks.len();
        locks.truncate(SHOWN);
        Self {
            error: None,
            age_ms: None,
            listed,
            complete: listing.is_complete(),
            locks: (locks.into_iter())
                .map(|lock| stored(lock, has_names))
                .collect(),
            instances,
            instances_total,
            is_by_age,
            are_all_named,
        }
    }

    /// The lock that is held longest, as far as it is known: one that was released and is kept closed is not held.
    pub(super) fn longest(&self) -> Option<&Stored> {
        let mut locks = self.locks.iter();
        locks.find(|lock| lock.held_ms.is_some() && lock.opens_in_ms.is_none())
    }
}

fn stored(lock: &ListedLock, has_names: bool) -> Stored {
    let holder = lock.holder();
    let now = SystemTime::now();
    let from_now = |until: SystemTime| until.duration_since(now).unwrap_or_default();
    let name = lock.name().filter(|_| has_names);
    Stored {
        key: key(lock, has_names).to_owned(),
        name: name.map(|name| name.as_str().to_owned()),
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
fn key(lock: &ListedLock, has_names: bool) -> &str {
    match lock.name() {
        Some(name) if !has_names && name.as_str() == lock.key() => name.label(),
        _ => lock.key(),
    }
}
