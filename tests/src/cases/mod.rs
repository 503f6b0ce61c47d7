//! The behaviours that every backend must show, each a function over [any store](crate::AnyStore).
//!
//! A case is listed once more, with the number of the promise that it checks, in
//! [`conformance!`](crate::conformance); one that is not listed there is found by a test.

pub mod at_least;
pub mod closing;
pub mod crowd;
mod crowding;
pub mod dropping;
pub mod exclusion;
pub mod hand_over;
pub mod holding;
pub mod leaving;
pub mod listing;
pub mod loss;
pub mod many;
pub mod names;
pub mod ownership;
pub mod permits;
pub mod processes;
pub mod readers;
mod reading;
pub mod tokens;
pub mod waiting;
pub mod wakers;

use std::time::Duration;

use lock_core::{LockGuard, LockName, LockProvider};

/// Longer than any hand-over takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the library may add to a wait.
const BOUND: Duration = Duration::from_millis(100);

/// Takes a lock that is free.
async fn take(client: &LockProvider, name: &LockName) -> LockGuard {
    client
        .lock(name)
        .unwrap()
        .acquire(Duration::ZERO)
        .await
        .unwrap()
}

/// Takes a lock that is free, or will be in a moment.
async fn wait_for(client: &LockProvider, name: &LockName) -> LockGuard {
    client.lock(name).unwrap().acquire(PATIENCE).await.unwrap()
}
