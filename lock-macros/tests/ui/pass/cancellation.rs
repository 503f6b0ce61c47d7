#![deny(warnings)]
//! Dropping the future releases the lock, and drops the body before that.

#[path = "../support/mod.rs"]
mod support;

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lock_core::{LockError, LockProvider, distributed_lock};
use support::{hold, is_held, is_held_now, locks};
use tokio::time::timeout;

/// Notes whether the lock was held when the body was dropped.
struct Witness(LockProvider, Arc<Mutex<Vec<bool>>>);

impl Drop for Witness {
    fn drop(&mut self) {
        let held = is_held_now(&self.0, "order:hang:1");
        self.1.lock().expect("no panic").push(held);
    }
}

#[distributed_lock("order:hang:<id>")]
async fn hang(locks: &LockProvider, id: u64, witness: Witness) -> Result<(), LockError> {
    let _ = (locks, id);
    pending().await
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() {
    let locks = locks();
    let seen = Arc::default();
    let witness = || Witness(locks.clone(), Arc::clone(&seen));

    let moment = Duration::from_millis(10);
    assert!(timeout(moment, hang(&locks, 1, witness())).await.is_err());
    assert!(!is_held(&locks, "order:hang:1").await);
    assert_eq!(
        *seen.lock().expect("no panic"),
        [true],
        "dropped while it was still locked"
    );

    // While it waits for the lock.
    let guard = hold(&locks, "order:hang:1").await;
    assert!(timeout(moment, hang(&locks, 1, witness())).await.is_err());
    guard.release().await.expect("ours");
    assert!(!is_held(&locks, "order:hang:1").await);

    // As a task that is aborted.
    let (one, other) = (locks.clone(), witness());
    let task = tokio::spawn(async move { hang(&one, 1, other).await });
    while !is_held(&locks, "order:hang:1").await {
        tokio::task::yield_now().await;
    }
    task.abort();
    assert!(task.await.expect_err("aborted").is_cancelled());
    assert!(!is_held(&locks, "order:hang:1").await);
    assert_eq!(*seen.lock().expect("no panic"), [true; 3]);
}
