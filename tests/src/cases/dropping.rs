//! A guard that is dropped releases, wherever that happens.

use std::time::Duration;

use lock_core::{LockGuard, LockName, LockProvider};
use tokio::sync::oneshot;

use super::{BOUND, take, wait_for};
use crate::{Harness, Lateness};

async fn is_released(client: &LockProvider, name: &LockName) {
    let lateness = Lateness::of(Duration::ZERO);
    wait_for(client, name).await.release().await.unwrap();
    lateness.check(BOUND).await;
}

/// The ordinary drop, at the end of a scope in a task.
pub async fn a_guard_that_is_dropped_in_a_task_releases(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    for client in [&here, &there] {
        let guard = take(&here, &name).await;
        // A task that still waits for a loss does not keep the lock.
        let _lost = guard.lost();
        tokio::spawn(async move { drop(guard) }).await.unwrap();
        is_released(client, &name).await;
    }
}

/// No runtime is there to help.
pub async fn a_guard_that_is_dropped_outside_of_a_runtime_releases(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    for client in [&here, &there] {
        let guard = take(&here, &name).await;
        let thread = std::thread::spawn(move || drop(guard));
        while !thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        is_released(client, &name).await;
    }
}

/// The stack unwinds through it.
pub async fn a_guard_that_is_dropped_by_a_panic_releases(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    for client in [&here, &there] {
        let guard = take(&here, &name).await;
        let panicked = tokio::spawn(async move {
            let _guard = guard;
            // Without the message of a panic, which would look like a failure.
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(panicked.await.unwrap_err().is_panic());
        is_released(client, &name).await;
    }
}

/// The task that holds it is aborted, in the middle of its work.
pub async fn a_guard_whose_task_is_aborted_releases(harness: Harness) {
    async fn work(guard: LockGuard, started: oneshot::Sender<()>) {
        started.send(()).unwrap();
        guard.protect(std::future::pending::<()>()).await.unwrap();
    }
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    for client in [&here, &there] {
        let (sender, started) = oneshot::channel();
        let task = tokio::spawn(work(take(&here, &name).await, sender));
        started.await.unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        is_released(client, &name).await;
    }
}

/// One of several runtimes ends, with a task that holds a lock and one that waits.
pub async fn a_guard_whose_runtime_ends_releases(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    for client in [&here, &there] {
        let (holder, name_held) = (here.clone(), name.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let guard = take(&holder, &name_held).await;
                tokio::spawn(async move {
                    guard.lost().await;
                });
                let lock = holder.lock(&name_held).unwrap();
                tokio::spawn(async move { lock.acquire(Duration::MAX).await });
                tokio::time::sleep(Duration::from_millis(10)).await;
            });
        });
        while !thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        thread.join().unwrap();
        is_released(client, &name).await;
    }
}
