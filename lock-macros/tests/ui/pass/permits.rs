#![deny(warnings)]
//! So many may hold a lock at a time, by a number or an expression; a lock that is kept.

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use lock_core::{LockError, LockProvider, distributed_lock};
use support::{assert_send, locks};

struct Exports {
    locks: LockProvider,
    at_a_time: usize,
}

impl Exports {
    #[distributed_lock(
        "export:run:<tenant>", provider = self.locks, permits = self.at_a_time, wait = "0s", guard = held
    )]
    async fn run(&self, tenant: &str, inner: usize) -> Result<usize, LockError> {
        assert!(held.name().as_str().starts_with("export:run:acme#"));
        if inner == 0 {
            return Ok(1);
        }
        Ok(1 + Box::pin(self.run(tenant, inner - 1)).await?)
    }
}

#[distributed_lock("export:run:<tenant>", permits = 2, wait = "0s")]
async fn export(locks: &LockProvider, tenant: &str) -> Result<(), LockError> {
    let _ = (locks, tenant);
    Ok(())
}

#[distributed_lock("job:report", skip, at_least = "50s", max_hold = "50s")]
async fn report(locks: &LockProvider) -> Option<u32> {
    let _ = locks;
    Some(12)
}

#[distributed_lock("job:other", skip, at_least = time, max_hold = Duration::from_secs(1))]
async fn other(locks: &LockProvider, time: Duration) -> Result<Option<u32>, LockError> {
    let _ = locks;
    Ok(Some(12))
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() {
    let exports = Exports {
        locks: locks(),
        at_a_time: 3,
    };
    assert_eq!(exports.run("acme", 2).await.unwrap(), 3);
    assert!(exports.run("acme", 3).await.unwrap_err().is_contended());
    let none = Exports {
        locks: locks(),
        at_a_time: 0,
    };
    assert!(none.run("acme", 0).await.unwrap_err().is_misconfigured());
    assert_send(export(&exports.locks, "acme")).await.unwrap();

    let locks = locks();
    assert_eq!(report(&locks).await, Some(12));
    assert_eq!(report(&locks).await, None);
    let error = other(&locks, Duration::from_secs(2)).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
}
