#![deny(warnings)]
//! `skip`: a held lock is no error, everything else is, as far as the return type can say so.

#[path = "../support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lock_core::{LockError, LockProvider, distributed_lock};
use support::{assert_send, hold, locks};
use tokio::time::Instant;

type Result<T> = std::result::Result<T, Error>;

#[derive(Debug)]
struct Error(LockError);

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        Self(error)
    }
}

static RUNS: AtomicU32 = AtomicU32::new(0);

fn ran() {
    RUNS.fetch_add(1, Ordering::Relaxed);
}

#[distributed_lock("job:sweep-<name>", skip)]
async fn unit(locks: &LockProvider, name: &str) {
    let _ = (locks, name);
    ran();
}

#[distributed_lock("job:sweep-<name>", skip)]
async fn option(locks: &LockProvider, name: &str) -> Option<u8> {
    let _ = (locks, name);
    ran();
    Some(1)
}

#[distributed_lock("job:sweep-<name>", skip)]
async fn result(locks: &LockProvider, name: &str) -> Result<()> {
    let _ = (locks, name);
    ran();
    Ok(())
}

#[distributed_lock("job:sweep-<name>", skip)]
async fn result_option(locks: &LockProvider, name: &str) -> Result<Option<u8>> {
    let _ = (locks, name);
    ran();
    Ok(Some(1))
}

/// Waits before it skips.
#[distributed_lock("job:sweep-a", skip, wait = "30ms")]
async fn patient(locks: &LockProvider) -> Option<()> {
    let _ = locks;
    Some(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
pub async fn main() {
    let locks = locks();
    assert_send(unit(&locks, "a")).await;
    assert_eq!(assert_send(option(&locks, "a")).await, Some(1));
    assert!(assert_send(result(&locks, "a")).await.is_ok());
    assert_eq!(
        assert_send(result_option(&locks, "a")).await.expect("free"),
        Some(1)
    );
    assert_eq!(RUNS.load(Ordering::Relaxed), 4);

    let _guard = hold(&locks, "job:sweep-a").await;
    let started = Instant::now();
    unit(&locks, "a").await;
    assert_eq!(option(&locks, "a").await, None);
    assert!(result(&locks, "a").await.is_ok());
    assert_eq!(result_option(&locks, "a").await.expect("skipped"), None);
    assert_eq!(
        started.elapsed(),
        Duration::ZERO,
        "tries once, without `wait`"
    );
    assert_eq!(patient(&locks).await, None);
    assert!(started.elapsed() >= Duration::from_millis(30));

    // No name can be made: that is no contention, and the body does not run either.
    unit(&locks, "").await;
    assert_eq!(option(&locks, "").await, None);
    assert!(
        result(&locks, "")
            .await
            .expect_err("told")
            .0
            .is_invalid_name()
    );
    assert!(
        result_option(&locks, "")
            .await
            .expect_err("told")
            .0
            .is_invalid_name()
    );
    assert_eq!(RUNS.load(Ordering::Relaxed), 4);
}
