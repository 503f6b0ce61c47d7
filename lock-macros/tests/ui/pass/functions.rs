#![deny(warnings)]
//! A plain function: locked while it runs, free afterwards, refused while another has the lock.

#[path = "../support/mod.rs"]
mod support;

use lock_core::{LockError, distributed_lock};
use support::{assert_send, hold, install, installed, is_held};

/// Documentation stays.
#[must_use = "and so do other attributes"]
#[distributed_lock("order:process:<id>", wait = "0s")]
pub async fn process(id: u64) -> Result<u64, LockError> {
    let locks = installed();
    assert!(is_held(&locks, "order:process:7").await);
    assert!(!is_held(&locks, "order:process:8").await);
    Ok(id * 2)
}

#[distributed_lock("job:nightly")]
async fn nightly() -> Result<(), LockError> {
    assert!(is_held(&installed(), "job:nightly").await);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() {
    let error = nightly().await.expect_err("no provider is installed");
    assert!(error.is_misconfigured(), "{error}");

    let locks = install();
    assert_eq!(assert_send(process(7)).await.expect("free"), 14);
    assert!(!is_held(&locks, "order:process:7").await);
    nightly().await.expect("free");

    let guard = hold(&locks, "order:process:7").await;
    let error = process(7).await.expect_err("held by another");
    assert!(error.is_contended());
    assert_eq!(
        error.lock().expect("it says which").as_str(),
        "order:process:7"
    );
    guard.release().await.expect("ours");
    assert_eq!(process(7).await.expect("free again"), 14);
}
