//! At most one holds a name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_core::{LockName, LockProvider};
use tokio::task::JoinSet;

use super::crowding::Crowding;
use super::{BOUND, PATIENCE, take, wait_for};
use crate::{Harness, Lateness, is_held};

/// A held lock is not granted again, in this client or another.
pub async fn a_held_name_cannot_be_taken_and_can_be_after_its_release(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    for _ in 0..3 {
        let guard = take(&here, &name).await;
        assert!(guard.is_valid());
        assert!(is_held(&here, &name).await && is_held(&there, &name).await);
        guard.release().await.unwrap();

        let guard = take(&there, &name).await;
        assert!(is_held(&here, &name).await && is_held(&there, &name).await);
        guard.release().await.unwrap();
    }
}

/// A lock excludes no caller from other locks.
pub async fn another_name_can_be_taken_meanwhile(harness: Harness) {
    let (here, there) = (harness.client().await, harness.client().await);
    let guard = take(&here, &harness.name()).await;
    let (second, third) = (
        take(&here, &harness.name()).await,
        take(&there, &harness.name()).await,
    );
    assert!(guard.is_valid() && second.is_valid() && third.is_valid());
}

/// Several tasks enter and leave for a while; each must be alone inside.
async fn alone_inside(clients: &[LockProvider], name: &LockName, tasks: usize, rounds: usize) {
    let inside = Arc::new(AtomicBool::new(false));
    let mut visitors = JoinSet::new();
    for client in clients.iter().cycle().take(tasks) {
        let (client, name, inside) = (client.clone(), name.clone(), Arc::clone(&inside));
        visitors.spawn(async move {
            for round in 0..rounds {
                let guard = wait_for(&client, &name).await;
                assert!(!inside.swap(true, Ordering::SeqCst), "two were inside");
                tokio::task::yield_now().await;
                assert!(guard.is_valid());
                inside.store(false, Ordering::SeqCst);
                // Both ways of giving back.
                if round % 2 == 0 {
                    guard.release().await.unwrap();
                }
            }
        });
    }
    visitors.join_all().await;
}

/// Two connections, with several tasks each.
pub async fn two_clients_are_never_inside_together(harness: Harness) {
    let clients = [harness.client().await, harness.client().await];
    alone_inside(&clients, &harness.name(), 8, 50).await;
}

/// Two queues over one connection.
pub async fn two_providers_over_one_backend_object_exclude_each_other(harness: Harness) {
    let provider = harness.store.providers_of_one_backend().await;
    let clients = [provider(), provider()];
    let name = harness.name();
    let guard = take(&clients[0], &name).await;
    assert!(is_held(&clients[1], &name).await);
    assert!(clients[1].claim([&name], 1).await.unwrap().is_empty());
    guard.release().await.unwrap();
    alone_inside(&clients, &name, 4, 50).await;
}

/// A client in whose line a task always waits lets the other one in.
pub async fn a_client_that_always_has_waiters_of_its_own_starves_nobody(harness: Harness) {
    // Each release goes to the store.
    let busy = harness.client_that_hands_over(Duration::ZERO).await;
    let (other, name) = (harness.client().await, harness.name());
    let crowd = Crowding::begin(&busy, &name, Duration::ZERO);
    let overtaken = crowd.overtakes(&other, &name, 200).await;
    // About once a round; a client that is starved is overtaken hundreds of times in each.
    assert!(
        overtaken <= 180 * 20,
        "overtaken {overtaken} times in 180 rounds"
    );
    // And the crowd is served as well.
    let before = crowd.entered();
    crate::eventually("the crowd goes on", || async { crowd.entered() > before }).await;
    crowd.end().await;
}

/// Locks are not re-entrant: a holder that asks again waits, and no longer than it said.
pub async fn acquiring_again_in_the_same_task_waits_like_any_other_caller(harness: Harness) {
    let (client, name) = (harness.client().await, harness.name());
    let guard = take(&client, &name).await;
    let lock = client.lock(&name).unwrap();
    let wait = Duration::from_millis(150);
    let lateness = Lateness::of(wait);
    let error = lock.acquire(wait).await.unwrap_err();
    lateness.check(BOUND).await;
    assert!(error.is_contended(), "{error}");
    assert!(error.waited().is_some_and(|waited| waited >= wait));
    assert_eq!(error.lock(), Some(&name));

    guard.release().await.unwrap();
    assert!(lock.try_acquire(PATIENCE).await.unwrap().is_some());
}
