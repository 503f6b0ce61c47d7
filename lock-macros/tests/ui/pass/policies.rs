#![deny(warnings)]
//! Policies by name, as constants and as expressions; durations in quotes and as expressions.

#[path = "../support/mod.rs"]
mod support;

use std::sync::Mutex;
use std::time::Duration;

use lock_core::{LockError, LockPolicy, LockProvider, distributed_lock};
use support::{assert_send, hold, locks};
use tokio::time::Instant;

const BRIEF: LockPolicy = LockPolicy::user_request().with_wait(Duration::from_millis(20));

fn brief() -> LockPolicy {
    BRIEF
}

#[distributed_lock("order:a:x", policy = background_job)]
async fn once(locks: &LockProvider) -> Result<(), LockError> {
    let _ = locks;
    Ok(())
}

#[distributed_lock("order:a:x", policy = BRIEF)]
async fn constant(locks: &LockProvider) -> Result<(), LockError> {
    let _ = locks;
    Ok(())
}

#[distributed_lock("order:a:x", policy = brief().with_max_hold(Duration::from_secs(1)))]
async fn expression(locks: &LockProvider) -> Result<(), LockError> {
    let _ = locks;
    Ok(())
}

/// A duration is how long to wait, as everywhere.
#[distributed_lock("order:a:x", policy = patience)]
async fn parameter(locks: &LockProvider, patience: Duration) -> Result<(), LockError> {
    let _ = (locks, patience);
    Ok(())
}

#[distributed_lock("order:a:x", policy = long_operation, wait = "20ms", max_hold = "1h 5m")]
async fn text(locks: &LockProvider) -> Result<(), LockError> {
    let _ = locks;
    Ok(())
}

#[distributed_lock("order:a:x", wait = Duration::from_millis(millis), max_hold = HOLD)]
async fn computed(locks: &LockProvider, millis: u64) -> Result<(), LockError> {
    let _ = (locks, millis);
    Ok(())
}

/// Nothing of the expression lives on while the lock is waited for.
#[distributed_lock("order:a:x", wait = *patience.lock().expect("no panic"))]
async fn temporary(locks: &LockProvider, patience: &Mutex<Duration>) -> Result<(), LockError> {
    let _ = (locks, patience);
    Ok(())
}

const HOLD: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread", start_paused = true)]
pub async fn main() {
    let locks = locks();
    let wait = Duration::from_millis(20);
    constant(&locks).await.expect("free");
    let _guard = hold(&locks, "order:a:x").await;

    let started = Instant::now();
    let error = assert_send(once(&locks)).await.expect_err("held");
    assert!(error.is_contended());
    assert_eq!(started.elapsed(), Duration::ZERO);
    for attempt in [
        Box::pin(constant(&locks)) as std::pin::Pin<Box<dyn Future<Output = _> + Send>>,
        Box::pin(expression(&locks)),
        Box::pin(parameter(&locks, wait)),
        Box::pin(text(&locks)),
        Box::pin(computed(&locks, 20)),
        Box::pin(temporary(&locks, &Mutex::new(wait))),
    ] {
        let started = Instant::now();
        assert!(attempt.await.expect_err("held").is_contended());
        let waited = started.elapsed();
        assert!(waited >= wait && waited < 2 * wait, "{waited:?}");
    }
}
