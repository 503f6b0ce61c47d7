#![deny(warnings)]
//! `busy =` for contention alone; other refusals convert.

#[path = "../support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicU32, Ordering};

use lock_core::{LockError, LockProvider, distributed_lock};
use support::{assert_send, hold, locks};

#[derive(Debug)]
enum OrderError {
    AlreadyBeingProcessed(String),
    Lock(LockError),
}

impl From<LockError> for OrderError {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

/// `busy` may use up what the body uses up too.
#[distributed_lock(
    "order:process:<id>",
    wait = "0s",
    busy = Err(OrderError::AlreadyBeingProcessed(id))
)]
async fn process(locks: &LockProvider, id: String) -> Result<String, OrderError> {
    let _ = locks;
    Ok(id)
}

static BUSY: AtomicU32 = AtomicU32::new(0);

fn busy() -> u32 {
    BUSY.fetch_add(1, Ordering::Relaxed);
    0
}

/// With `refused`, which is for all the rest, it fits any type.
#[distributed_lock("order:count:<id>", wait = "0s", busy = busy(), refused = |_| 99)]
async fn count(locks: &LockProvider, id: &str) -> u32 {
    let _ = (locks, id);
    1
}

async fn page(id: &str) -> String {
    tokio::task::yield_now().await;
    format!("{id} is busy")
}

#[distributed_lock("order:show:<id>", wait = "0s", busy = Ok(page(id).await))]
async fn show(locks: &LockProvider, id: &str) -> Result<String, LockError> {
    let _ = locks;
    Ok(id.to_owned())
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() {
    let locks = locks();
    let answer = assert_send(process(&locks, "a".into())).await;
    assert_eq!(answer.expect("free"), "a");
    let guard = hold(&locks, "order:process:a").await;
    let error = process(&locks, "a".into()).await.expect_err("held");
    assert!(matches!(error, OrderError::AlreadyBeingProcessed(id) if id == "a"));
    let error = process(&locks, String::new()).await.expect_err("no name");
    assert!(matches!(error, OrderError::Lock(error) if error.is_invalid_name()));
    drop(guard);

    assert_eq!(assert_send(count(&locks, "a")).await, 1);
    assert_eq!(BUSY.load(Ordering::Relaxed), 0);
    let _guard = hold(&locks, "order:count:a").await;
    assert_eq!(count(&locks, "a").await, 0);
    assert_eq!(BUSY.load(Ordering::Relaxed), 1);
    assert_eq!(count(&locks, "").await, 99);

    assert_eq!(assert_send(show(&locks, "a")).await.expect("free"), "a");
    let _other = hold(&locks, "order:show:a").await;
    assert_eq!(
        assert_send(show(&locks, "a")).await.expect("said so"),
        "a is busy"
    );
}
