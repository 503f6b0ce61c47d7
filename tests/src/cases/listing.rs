//! What is held in a store, as it says itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use lock_core::{ListedLock, LockMode, LockName, LockPolicy, LockProvider};

use super::reading::{Sides, granted, is_readable, read, spawn_writer};
use super::{PATIENCE, take};
use crate::{Harness, eventually, is_held};

/// By how much the clock of a store, or what a file system keeps of it, may differ from ours.
const APART: Duration = Duration::from_millis(100);

/// Longer than any lease.
const KEPT: Duration = Duration::from_secs(60);

/// More than any case holds.
const ALL: usize = 1_000;

/// All that is held, by its keys.
async fn listed(client: &LockProvider) -> BTreeMap<String, ListedLock> {
    let listing = client.list(ALL).await.unwrap();
    assert!(listing.is_complete());
    let locks = listing.locks().iter();
    let by_key: BTreeMap<_, _> = locks
        .map(|lock| (lock.key().to_owned(), lock.clone()))
        .collect();
    assert_eq!(by_key.len(), listing.locks().len(), "a key came twice");
    by_key
}

/// The lock that was not there before.
async fn new_one(client: &LockProvider, known: &BTreeSet<String>) -> ListedLock {
    let mut listed = listed(client).await;
    listed.retain(|key, _| !known.contains(key));
    assert_eq!(listed.len(), 1, "{listed:?}");
    listed.into_values().next().unwrap()
}

/// By each client, also those of others, under a key for each name that stays the same.
pub async fn held_locks_are_listed_and_released_ones_are_not(harness: Harness) {
    let (here, there) = (harness.client().await, harness.client().await);
    harness.store.allow_listing().await;
    assert!(listed(&here).await.is_empty());
    let (mut keys, mut guards) = (BTreeSet::new(), Vec::new());
    for holding in [&here, &there, &here] {
        let (name, asked) = (harness.name(), SystemTime::now());
        guards.push(take(holding, &name).await);
        let lock = new_one(&here, &keys).await;
        let us = format!(":{}", std::process::id());
        assert!(lock.holder().instance().unwrap().ends_with(&us), "{lock:?}");
        assert_eq!(lock.holder().mode(), LockMode::Exclusive);
        if let Some(since) = lock.holder().since() {
            assert!(since + APART >= asked, "{lock:?}");
            assert!(since <= SystemTime::now() + APART, "{lock:?}");
        }
        if let Some(known) = lock.name() {
            assert_eq!(*known, name);
        }
        assert_ne!(lock.is_awaited(), Some(true));
        keys.insert(lock.key().to_owned());
    }
    let by_other: BTreeSet<_> = listed(&there).await.into_keys().collect();
    assert_eq!(by_other, keys);
    let again = guards[0].name().clone();
    for guard in guards {
        guard.release().await.unwrap();
    }
    assert!(listed(&there).await.is_empty());
    let guard = take(&there, &again).await;
    assert!(keys.contains(new_one(&here, &BTreeSet::new()).await.key()));
    guard.release().await.unwrap();
}

/// By whichever keeps it, and until when where that is the store.
pub async fn a_lock_that_is_kept_is_listed(harness: Harness) {
    let (here, there) = (harness.client().await, harness.client().await);
    harness.store.allow_listing().await;
    let policy = LockPolicy::from(PATIENCE).with_at_least(KEPT);
    let (name, began) = (harness.name(), SystemTime::now());
    let guard = here.acquire(name, policy).await.unwrap();
    assert_eq!(listed(&there).await.len(), 1);
    guard.release().await.unwrap();
    let lock = new_one(&there, &BTreeSet::new()).await;
    match lock.holder().until() {
        Some(until) => {
            assert!(until + APART >= began + KEPT, "{lock:?}");
            assert!(until <= SystemTime::now() + KEPT + APART, "{lock:?}");
        }
        None => assert!(!harness.store.keeps(), "{lock:?}"),
    }
}

/// Where the store tells that at all.
pub async fn a_lock_that_is_awaited_is_listed_as_such(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    harness.store.allow_listing().await;
    let guard = take(&here, &name).await;
    let lock = there.lock(&name).unwrap();
    let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    eventually("the waiter is seen, or not told of", || async {
        let listed = new_one(&here, &BTreeSet::new()).await;
        listed.is_awaited() != Some(false)
    })
    .await;
    guard.release().await.unwrap();
    let guard = waiting.await.unwrap().unwrap();
    guard.release().await.unwrap();
}

/// A try that does not wait is none that the holder is to know of, in whichever mode.
pub async fn a_lock_that_was_only_tried_is_not_listed_as_awaited(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    harness.store.allow_listing().await;
    let guard = take(&here, &name).await;
    assert!(is_held(&there, &name).await);
    assert!(there.claim([&name], 1).await.unwrap().is_empty());
    if harness.store.has_readers() {
        assert!(!is_readable(&there, &name).await);
    }
    let lock = new_one(&here, &BTreeSet::new()).await;
    assert_ne!(lock.is_awaited(), Some(true), "{lock:?}");
    guard.release().await.unwrap();
    // All of its permits.
    let name = harness.name();
    let permits = |client: &LockProvider| client.lock(name.clone()).unwrap().permits(2);
    let guards = [
        permits(&here).acquire(PATIENCE).await.unwrap(),
        permits(&here).acquire(PATIENCE).await.unwrap(),
    ];
    for client in [&here, &there] {
        let tried = permits(client).try_acquire(Duration::ZERO).await;
        assert!(tried.unwrap().is_none());
    }
    for lock in listed(&here).await.into_values() {
        assert_ne!(lock.is_awaited(), Some(true), "{lock:?}");
    }
    for guard in guards {
        guard.release().await.unwrap();
    }
}

/// It holds nothing, and takes no room in a listing of few.
pub async fn a_writer_that_waits_is_not_listed(harness: Harness) {
    const READ: usize = 8;
    let mut all = Vec::new();
    for _ in 0..READ {
        let Some(sides) = Sides::of(&harness).await else {
            return;
        };
        let reader = read(&sides.here, &sides.name).await;
        let writer = spawn_writer(&sides.there, &sides.name);
        sides.a_writer_waits().await;
        all.push((reader, writer));
    }
    let client = harness.client().await;
    harness.store.allow_listing().await;
    let guard = take(&client, &harness.name()).await;
    let held = match harness.store.lists_readers() {
        true => READ + 1,
        false => 1,
    };
    for limit in (0..=held).chain([ALL]) {
        let listing = client.list(limit).await.unwrap();
        assert_eq!(
            listing.locks().len(),
            limit.min(held),
            "{limit}: {listing:?}"
        );
        assert_eq!(listing.is_complete(), limit >= held, "{limit}: {listing:?}");
    }
    guard.release().await.unwrap();
    for (reader, writer) in all {
        reader.release().await.unwrap();
        granted(writer).await.release().await.unwrap();
    }
}

/// Each permit is listed, since each is a lock.
pub async fn the_slots_of_permits_are_listed(harness: Harness) {
    let (client, name) = (harness.client().await, harness.name());
    harness.store.allow_listing().await;
    let lock = client.lock(&name).unwrap().permits(2);
    let one = lock.acquire(Duration::ZERO).await.unwrap();
    let other = lock.acquire(Duration::ZERO).await.unwrap();
    let listed = listed(&client).await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    let slots: BTreeSet<LockName> = lock.slots().collect();
    for lock in listed.values() {
        assert!(
            lock.name().is_none_or(|name| slots.contains(name)),
            "{lock:?}"
        );
    }
    one.release().await.unwrap();
    other.release().await.unwrap();
}

/// None is shown beyond it, and that there are more is said.
pub async fn a_listing_has_no_more_than_its_limit(harness: Harness) {
    const HELD: usize = 30;
    let client = harness.client().await;
    harness.store.allow_listing().await;
    let names: Vec<_> = (0..HELD).map(|_| harness.name()).collect();
    let guards = client.claim(names, HELD).await.unwrap();
    assert_eq!(guards.len(), HELD);
    for (limit, shown) in [
        (0, 0),
        (1, 1),
        (HELD - 1, HELD - 1),
        (HELD, HELD),
        (ALL, HELD),
    ] {
        let listing = client.list(limit).await.unwrap();
        assert_eq!(listing.locks().len(), shown);
        assert_eq!(listing.is_complete(), limit >= HELD, "{limit}");
    }
    let most = client.list(usize::MAX).await.unwrap();
    assert!(most.is_complete() && most.locks().len() == HELD);
    drop(guards);
}

/// It is an error, and not a store without locks.
pub async fn nothing_is_listed_after_a_shutdown(harness: Harness) {
    let client = harness.client().await;
    client.shutdown(Duration::ZERO).await;
    let error = client.list(ALL).await.unwrap_err();
    assert!(error.is_closed(), "{error}");
}
