//! How long a caller waits, and in what order callers are served.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use lock_core::{Acquire, LockError, LockGuard, LockName, LockPolicy, LockProvider};
use tokio::task::{JoinHandle, JoinSet};

use super::{BOUND, PATIENCE, take, wait_for};
use crate::{Harness, Lateness};

/// Calls an acquire and lets it get in line, before the next call.
async fn line_up(client: &LockProvider, name: &LockName, wait: Duration) -> Acquire {
    let mut acquire = client.lock(name).unwrap().acquire_owned(wait);
    let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut acquire).poll(cx).is_pending())).await;
    assert!(first, "the lock is held");
    acquire
}

/// Whatever is spawned is driven, which a waiter across connections may need to be.
fn drive(acquire: Acquire) -> JoinHandle<Result<LockGuard, LockError>> {
    tokio::spawn(acquire)
}

/// Without a wait a try is one question.
pub async fn a_try_without_a_wait_is_refused_at_once(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    let _guard = take(&here, &name).await;
    for client in [&here, &there] {
        let lock = client.lock(&name).unwrap();
        let lateness = Lateness::of(Duration::ZERO);
        assert!(lock.try_acquire(Duration::ZERO).await.unwrap().is_none());
        lateness.check(BOUND).await;
    }
}

/// A refusal is known when the wait is over, neither before nor long after.
pub async fn a_refusal_comes_when_the_wait_is_over_and_not_before(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    let _guard = take(&here, &name).await;
    for client in [&here, &there] {
        let lock = client.lock(&name).unwrap();
        for wait in [3, 60, 250].map(Duration::from_millis) {
            let lateness = Lateness::of(wait);
            assert!(lock.try_acquire(wait).await.unwrap().is_none());
            lateness.check(BOUND).await;
        }
        let error = lock.acquire(Duration::from_millis(20)).await.unwrap_err();
        assert!(error.is_contended(), "{error}");
    }
}

/// Waiting pays off, in the line of one client and across two.
pub async fn a_wait_is_served_when_the_holder_releases_within_it(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    for client in [&here, &there] {
        let guard = take(&here, &name).await;
        let waiter = drive(line_up(client, &name, PATIENCE).await);
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(!waiter.is_finished());
        let lateness = Lateness::of(Duration::ZERO);
        guard.release().await.unwrap();
        let guard = waiter.await.unwrap().unwrap();
        lateness.check(BOUND).await;
        assert!(guard.is_valid());
        guard.release().await.unwrap();
    }
}

/// First come, first served, among the tasks of one process.
pub async fn a_hundred_tasks_are_served_one_by_one_in_the_order_of_their_calls(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    for holder in [&here, &there] {
        let guard = take(holder, &name).await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for number in 0..100 {
            let (acquire, served) = (line_up(&here, &name, PATIENCE).await, Arc::clone(&served));
            tasks.spawn(async move {
                let guard = acquire.await.unwrap();
                served.lock().unwrap().push(number);
                tokio::task::yield_now().await;
                assert_eq!(
                    served.lock().unwrap().last(),
                    Some(&number),
                    "two were inside"
                );
                guard.release().await.unwrap();
            });
        }
        guard.release().await.unwrap();
        tasks.join_all().await;
        assert_eq!(*served.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }
}

/// A waiter that leaves the line is not waited for.
pub async fn an_acquire_that_is_dropped_while_it_waits_leaves_the_line(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    for holder in [&here, &there] {
        let guard = take(holder, &name).await;
        let first = line_up(&here, &name, PATIENCE).await;
        let second = line_up(&here, &name, PATIENCE).await;
        let third = drive(line_up(&here, &name, PATIENCE).await);
        drop(second);
        // The one that asks on behalf of the line.
        drop(first);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let lateness = Lateness::of(Duration::ZERO);
        guard.release().await.unwrap();
        third.await.unwrap().unwrap().release().await.unwrap();
        lateness.check(BOUND).await;
    }
    // When all have left, the lock is as free as before.
    let guard = take(&here, &name).await;
    let waiters = [
        line_up(&here, &name, PATIENCE).await,
        line_up(&there, &name, PATIENCE).await,
    ];
    drop(waiters);
    guard.release().await.unwrap();
    take(&there, &name).await.release().await.unwrap();
}

/// The longest wait that ends at a point in time at all.
fn longest() -> Duration {
    let now = Instant::now();
    let (mut fits, mut too_long) = (0, u64::MAX);
    while too_long - fits > 1 {
        let half = fits + (too_long - fits) / 2;
        match now.checked_add(Duration::from_secs(half)) {
            Some(_) => fits = half,
            None => too_long = half,
        }
    }
    // Time goes on until it is used.
    Duration::from_secs(fits - 1)
}

/// No duration is a trap.
pub async fn zero_tiny_and_maximal_waits_behave(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    let guard = take(&here, &name).await;
    for client in [&here, &there] {
        for wait in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_micros(999),
        ] {
            let refused = client.lock(&name).unwrap().try_acquire(wait).await;
            assert!(refused.unwrap().is_none(), "{wait:?}");
        }
    }
    let mut waiters = JoinSet::new();
    for client in [&here, &there] {
        for wait in [Duration::MAX, longest(), Duration::from_secs(u64::MAX / 2)] {
            let acquire = line_up(client, &name, wait).await;
            waiters.spawn(async move { acquire.await.unwrap().release().await });
        }
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    guard.release().await.unwrap();
    for released in waiters.join_all().await {
        released.unwrap();
    }
}

/// Neither is a bound on the hold.
pub async fn zero_tiny_and_maximal_holds_behave(harness: Harness) {
    let (client, name) = (harness.client().await, harness.name());
    let lock = client.lock(&name).unwrap();
    for max_hold in [Duration::ZERO, Duration::from_nanos(1)] {
        let guard = lock
            .acquire(LockPolicy::user_request().with_max_hold(max_hold))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!guard.is_valid());
        assert!(
            guard
                .protect(std::future::ready(()))
                .await
                .unwrap_err()
                .is_lost()
        );
        assert!(guard.release().await.unwrap_err().is_lost());
    }
    for max_hold in [longest(), Duration::MAX] {
        let guard = lock
            .acquire(LockPolicy::user_request().with_max_hold(max_hold))
            .await
            .unwrap();
        guard
            .protect(tokio::time::sleep(Duration::from_millis(5)))
            .await
            .unwrap();
        guard.release().await.unwrap();
    }
    wait_for(&client, &name).await.release().await.unwrap();
}
