#![deny(warnings)]
//! A lock that is lost stops the body; a body that finishes after its lease is lost too.

#[path = "../support/mod.rs"]
mod support;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_core::{LockError, LockProvider, distributed_lock};
use support::{assert_send, is_held, is_held_now, locks};

/// What became of a body.
#[derive(Default)]
struct Body {
    began: AtomicBool,
    stopped: AtomicBool,
}

struct Stopped<'a>(&'a LockProvider, Arc<Body>);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        assert!(
            is_held_now(self.0, "order:hang:1"),
            "nobody else has it yet"
        );
        self.1.stopped.store(true, Ordering::Release);
    }
}

#[distributed_lock("order:hang:<id>", max_hold = "20ms")]
async fn hang(locks: &LockProvider, id: u64, body: Arc<Body>) -> Result<(), LockError> {
    let _ = id;
    body.began.store(true, Ordering::Release);
    let _stopped = Stopped(locks, body);
    pending().await
}

#[distributed_lock("order:late:<id>", max_hold = "5ms")]
async fn late(locks: &LockProvider, id: u64) -> Result<u64, LockError> {
    let _ = locks;
    std::thread::sleep(Duration::from_millis(20));
    Ok(id)
}

#[distributed_lock("job:hang", max_hold = "20ms", skip)]
async fn job(locks: &LockProvider) -> Option<u8> {
    let _ = locks;
    pending().await
}

#[distributed_lock("pair:hang:a", "pair:hang:b", max_hold = "20ms")]
async fn pair(locks: &LockProvider) -> Result<(), LockError> {
    let _ = locks;
    pending().await
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() {
    let locks = locks();
    let mut body = Arc::<Body>::default();
    // On a machine that stands still for all of the hold the lock is lost before the body begins.
    while !body.began.load(Ordering::Acquire) {
        body = Arc::default();
        let error = assert_send(hang(&locks, 1, Arc::clone(&body)))
            .await
            .expect_err("lost");
        assert!(error.is_lost(), "{error}");
    }
    assert!(
        body.stopped.load(Ordering::Acquire),
        "the body is gone when the function returns"
    );
    assert!(!is_held(&locks, "order:hang:1").await);

    assert!(
        late(&locks, 1)
            .await
            .expect_err("its outcome is unknown")
            .is_lost()
    );
    assert!(!is_held(&locks, "order:late:1").await);
    assert_eq!(job(&locks).await, None);
    assert!(assert_send(pair(&locks)).await.expect_err("lost").is_lost());
    assert!(!is_held(&locks, "pair:hang:a").await);
}
