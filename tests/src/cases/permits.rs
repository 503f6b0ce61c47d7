//! Locks that so many hold at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lock_core::{DistributedLock, LockGuard, LockName, LockProvider};
use tokio::task::JoinSet;

use super::PATIENCE;
use crate::Harness;
use crate::child::Child;

/// How many permits there are mostly.
const PERMITS: usize = 3;

fn permits(client: &LockProvider, name: &LockName, number: usize) -> DistributedLock {
    client.lock(name).unwrap().permits(number)
}

/// Takes a permit that is free.
async fn take(lock: &DistributedLock) -> LockGuard {
    lock.acquire(Duration::ZERO).await.unwrap()
}

async fn is_full(lock: &DistributedLock) -> bool {
    match lock.try_acquire(Duration::ZERO).await.unwrap() {
        Some(guard) => {
            guard.release().await.unwrap();
            false
        }
        None => true,
    }
}

/// From two clients, in each slot once.
pub async fn so_many_hold_it_at_a_time_and_no_more(harness: Harness) {
    let name = harness.name();
    let here = permits(&harness.client().await, &name, PERMITS);
    let there = permits(&harness.client().await, &name, PERMITS);
    let mut guards = vec![take(&here).await, take(&there).await, take(&here).await];
    assert!(is_full(&here).await && is_full(&there).await);
    assert!(guards.iter().all(LockGuard::is_valid));
    let mut slots: Vec<_> = guards.iter().map(|guard| guard.name().clone()).collect();
    slots.sort();
    assert_eq!(slots, here.slots().collect::<Vec<_>>());

    for _ in 0..PERMITS {
        let freed = guards.remove(0);
        let slot = freed.name().clone();
        freed.release().await.unwrap();
        guards.push(take(&there).await);
        assert_eq!(*guards[PERMITS - 1].name(), slot);
        assert!(is_full(&here).await);
    }
}

/// Counted inside, by all of them together.
pub async fn two_clients_and_many_tasks_are_never_more_than_so_many(harness: Harness) {
    const TASKS: usize = 8;
    const ROUNDS: usize = 25;
    let name = harness.name();
    let (inside, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let mut tasks = JoinSet::new();
    for client in [harness.client().await, harness.client().await] {
        for _ in 0..TASKS {
            let lock = permits(&client, &name, PERMITS);
            let (inside, most) = (Arc::clone(&inside), Arc::clone(&most));
            tasks.spawn(async move {
                for _ in 0..ROUNDS {
                    let guard = lock.acquire(PATIENCE).await.unwrap();
                    let now = 1 + inside.fetch_add(1, Ordering::SeqCst);
                    most.fetch_max(now, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_micros(200)).await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    guard.release().await.unwrap();
                }
            });
        }
    }
    tasks.join_all().await;
    assert_eq!(most.load(Ordering::SeqCst), PERMITS);
}

/// It waits for all of them, also while another client has them.
pub async fn a_waiter_is_served_by_whichever_slot_is_freed(harness: Harness) {
    let name = harness.name();
    let here = permits(&harness.client().await, &name, PERMITS);
    let there = permits(&harness.client().await, &name, PERMITS);
    let mut guards = Vec::new();
    for _ in 0..PERMITS {
        guards.push(take(&there).await);
    }
    for _ in 0..PERMITS {
        let waiting = {
            let here = here.clone();
            tokio::spawn(async move { here.acquire(PATIENCE).await })
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        let freed = guards.remove(0);
        let slot = freed.name().clone();
        freed.release().await.unwrap();
        let granted = waiting.await.unwrap().unwrap();
        assert_eq!(*granted.name(), slot);
        guards.push(granted);
    }
    assert!(is_full(&there).await);
}

/// They grow in each slot.
pub async fn each_permit_has_a_token_of_its_slot(harness: Harness) {
    let name = harness.name();
    let clients = [harness.client().await, harness.client().await];
    let locks = clients.map(|client| permits(&client, &name, PERMITS));
    let mut newest = BTreeMap::new();
    for round in 0..6 {
        let mut guards = Vec::new();
        for _ in 0..PERMITS {
            let guard = locks[round % 2].acquire(PATIENCE).await.unwrap();
            let token = guard.fencing_token().await.unwrap();
            let before = newest.insert(guard.name().clone(), token);
            assert!(before.is_none_or(|before| before < token));
            guards.push(guard);
        }
        for guard in guards {
            guard.release().await.unwrap();
        }
    }
    assert_eq!(newest.len(), PERMITS);
}

/// Its slot is free again, and the others are as they were.
pub async fn the_loss_of_one_permit_leaves_the_others(harness: Harness) {
    let name = harness.name();
    let here = permits(&harness.client().await, &name, PERMITS);
    let there = permits(&harness.client().await, &name, PERMITS);
    let lost = take(&here).await;
    // A session can be lost as a whole.
    let others = [take(&there).await, take(&there).await];
    assert!(is_full(&there).await);
    harness.store.lose(lost.name()).await;
    tokio::time::timeout(PATIENCE, lost.lost()).await.unwrap();
    assert!(!lost.is_valid());
    assert!(others.iter().all(LockGuard::is_valid));
    let next = there.acquire(PATIENCE).await.unwrap();
    assert_eq!(next.name(), lost.name());
    assert!(is_full(&here).await);
    for guard in others {
        guard.release().await.unwrap();
    }
}

/// Never are there more than the greater number says.
pub async fn a_client_with_fewer_permits_shares_the_first_slots(harness: Harness) {
    let name = harness.name();
    let many = permits(&harness.client().await, &name, PERMITS);
    let few = permits(&harness.client().await, &name, 1);
    let mut guards = Vec::new();
    for _ in 0..PERMITS {
        guards.push(take(&many).await);
    }
    assert!(is_full(&few).await);
    let first = few.slots().next().unwrap();
    let at = guards.iter().position(|guard| *guard.name() == first);
    guards.remove(at.unwrap()).release().await.unwrap();
    let only = take(&few).await;
    assert!(is_full(&many).await && is_full(&few).await);
    guards.pop().unwrap().release().await.unwrap();
    assert!(is_full(&few).await && !is_full(&many).await);
    drop(only);
}

/// In time, and all of them.
pub async fn permits_of_a_process_that_is_killed_are_granted(harness: Harness) {
    let (client, name) = (harness.client().await, harness.name());
    let lock = permits(&client, &name, PERMITS);
    let asked = format!("acquire {name} 0 permits={PERMITS}");
    let mut children: Vec<Child> = Vec::new();
    for _ in 0..PERMITS {
        let mut child = harness.child().await;
        assert_eq!(child.ask(&asked).await, "granted");
        children.push(child);
    }
    assert!(is_full(&lock).await);
    assert_eq!(harness.child().await.ask(&asked).await, "contended");
    for mut child in children.drain(..2) {
        child.kill().await;
    }
    let granted = [
        lock.acquire(PATIENCE).await.unwrap(),
        lock.acquire(PATIENCE).await.unwrap(),
    ];
    assert!(is_full(&lock).await);
    children[0].release().await;
    drop((take(&lock).await, granted));
}

/// Each of those who try once, and all at a time, finds one of the slots that are free; also where none was ever held.
pub async fn tries_that_meet_find_a_permit_each(harness: Harness) {
    const ROUNDS: usize = 20;
    let mut clients = Vec::new();
    for _ in 0..PERMITS {
        clients.push(harness.client().await);
    }
    for _ in 0..ROUNDS {
        let name = harness.name();
        let mut tries = JoinSet::new();
        for client in &clients {
            tries.spawn(permits(client, &name, PERMITS).acquire_owned(Duration::ZERO));
        }
        let granted = tries.join_all().await;
        let guards: Vec<_> = granted.into_iter().map(Result::unwrap).collect();
        for guard in guards {
            guard.release().await.unwrap();
        }
    }
}
