//! Thousands of waiters together. What each costs is measured in `tests/memory.rs`.

use std::time::Duration;

use lock_core::{LockGuard, LockName, LockProvider};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::task::JoinSet;

use super::{PATIENCE, take};
use crate::{Harness, crowd_outlasts};

const CROWD: usize = 10_000;

/// Longer than it takes to serve the crowd one by one.
const LONG: Duration = Duration::from_secs(100);

/// Lets this process open as many files as it may: a held lock can be one.
fn open_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Two clients that give a busy machine time: what is asked here is whether the crowd is served, and
/// neither how soon one answer comes nor how short a lease can be.
async fn two_clients(harness: &Harness) -> [LockProvider; 2] {
    open_many_files();
    let clients = [
        harness.store.long_lived_provider().await,
        harness.store.long_lived_provider().await,
    ];
    clients.map(|client| client.response_timeout(LONG).build())
}

/// How many locks are asked for together, as services do that want many: how much a server has to do at a
/// time is bounded by the time in which it has to answer.
const TOGETHER: usize = 500;

async fn take_many(client: &LockProvider, names: &[LockName]) -> Vec<LockGuard> {
    let mut guards = Vec::with_capacity(names.len());
    for names in names.chunks(TOGETHER) {
        guards.extend(client.claim(names, CROWD).await.unwrap());
    }
    assert_eq!(guards.len(), names.len());
    guards
}

fn names(harness: &Harness) -> Vec<LockName> {
    (0..CROWD).map(|_| harness.name()).collect()
}

/// One process holds them all.
pub async fn ten_thousand_guards_are_held_at_once(harness: Harness) {
    let ([here, there], names) = (two_clients(&harness).await, names(&harness));
    let guards = take_many(&here, &names).await;
    for names in names.chunks(TOGETHER) {
        assert!(there.claim(names, CROWD).await.unwrap().is_empty());
    }
    assert!(guards.iter().all(LockGuard::is_valid));
    drop(guards);
    let last = there
        .lock(&names[CROWD - 1])
        .unwrap()
        .acquire(PATIENCE)
        .await
        .unwrap();
    last.release().await.unwrap();
}

/// All of them get it, one after the other.
pub async fn ten_thousand_waiters_on_one_name_are_served(harness: Harness) {
    let ([here, there], name) = (two_clients(&harness).await, harness.name());
    let guard = take(&there, &name).await;
    let lock = here.lock(&name).unwrap();
    let mut waiters = JoinSet::new();
    for _ in 0..CROWD {
        let acquire = lock.acquire_owned(LONG);
        waiters.spawn(async move { acquire.await.unwrap().release().await.unwrap() });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    guard.release().await.unwrap();
    assert_eq!(waiters.join_all().await.len(), CROWD);
}

/// As many lines as waiters, across two clients.
pub async fn ten_thousand_waiters_on_ten_thousand_names_are_served(harness: Harness) {
    let ([here, there], names) = (two_clients(&harness).await, names(&harness));
    let guards = take_many(&there, &names).await;
    let mut waiters = JoinSet::new();
    for name in &names {
        let acquire = here.lock(name).unwrap().acquire_owned(LONG);
        waiters.spawn(async move { acquire.await.unwrap().release().await.unwrap() });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(waiters.len(), CROWD);
    assert!(
        waiters.try_join_next().is_none(),
        "nobody was served before the release"
    );
    drop(guards);
    assert_eq!(waiters.join_all().await.len(), CROWD);
}

/// No waiter is sent away, and none is let in beside another.
pub async fn five_thousand_waiters_outlast_the_loss_of_everything(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    crowd_outlasts(&there, &here, &name, harness.store.lose_all()).await;
}
