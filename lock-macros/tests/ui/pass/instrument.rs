#![deny(warnings)]
//! `#[tracing::instrument]` above and below.

#[path = "../support/mod.rs"]
mod support;

use lock_core::{LockError, distributed_lock};
use support::{assert_send, hold, install, installed, is_held};
use tracing::instrument;

#[instrument]
#[distributed_lock("order:ship:<id>", wait = "0s")]
async fn above(id: u64, note: &str) -> Result<usize, LockError> {
    assert!(is_held(&installed(), "order:ship:1").await);
    Ok(note.len())
}

#[distributed_lock("order:ship:<id>", wait = "0s")]
#[instrument(skip(note), err)]
async fn below(id: u64, note: &str) -> Result<usize, LockError> {
    assert!(is_held(&installed(), "order:ship:1").await);
    if note.is_empty() {
        return Ok(usize::MAX);
    }
    Err(LockError::unavailable("as it was"))?
}

/// What is above sees the guard, as the body does.
#[instrument(fields(lock = held.name().label()), ret)]
#[distributed_lock("order:ship:<id>", guard = held)]
async fn guarded_above(id: u64) -> Result<String, LockError> {
    let _ = id;
    Ok(held.name().to_string())
}

#[distributed_lock("order:ship:<id>", guard = held)]
#[instrument(ret)]
async fn guarded_below(id: u64) -> Result<String, LockError> {
    let _ = id;
    Ok(held.name().to_string())
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), LockError> {
    let locks = install();
    assert_eq!(assert_send(above(1, "abc")).await?, 3);
    assert_eq!(assert_send(below(1, "")).await?, usize::MAX);
    assert!(below(1, "x").await.expect_err("by `?`").is_unavailable());
    assert_eq!(assert_send(guarded_above(2)).await?, "order:ship:2");
    assert_eq!(assert_send(guarded_below(2)).await?, "order:ship:2");
    let _guard = hold(&locks, "order:ship:1").await;
    assert!(above(1, "").await.expect_err("held").is_contended());
    assert!(below(1, "").await.expect_err("held").is_contended());
    Ok(())
}
