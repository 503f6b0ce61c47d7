#![deny(warnings)]
//! Readers hold a lock together, and a writer holds it alone.

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use lock_core::{LockError, LockPolicy, LockProvider, distributed_lock};
use support::{assert_send, locks};

struct Catalog {
    locks: LockProvider,
    id: u64,
}

impl Catalog {
    /// So many readers, each inside the other.
    #[distributed_lock("catalog:read:<self.id>", shared, provider = self.locks, wait = "0s", guard = held)]
    async fn read(&self, inner: usize) -> Result<usize, LockError> {
        assert_eq!(held.name().as_str(), "catalog:read:7");
        assert!(held.fencing_token().await.unwrap_err().is_misconfigured());
        if inner == 0 {
            return Ok(1);
        }
        Ok(1 + Box::pin(self.read(inner - 1)).await?)
    }

    #[distributed_lock("catalog:read:<self.id>", provider = self.locks, wait = "0s")]
    async fn import(&self) -> Result<usize, LockError> {
        self.read(0).await
    }
}

#[distributed_lock("catalog:read:<id>", shared, skip)]
async fn look(locks: &LockProvider, id: u64) -> Option<u32> {
    let _ = (locks, id);
    Some(12)
}

#[distributed_lock("catalog:read:<id>", shared, policy = kept())]
async fn wrong(locks: &LockProvider, id: u64) -> Result<(), LockError> {
    let _ = (locks, id);
    Ok(())
}

fn kept() -> LockPolicy {
    LockPolicy::background_job().with_at_least(Duration::from_secs(1))
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() {
    let catalog = Catalog {
        locks: locks(),
        id: 7,
    };
    assert_eq!(assert_send(catalog.read(2)).await.unwrap(), 3);
    assert!(catalog.import().await.unwrap_err().is_contended());

    let locks = &catalog.locks;
    assert_eq!(look(locks, 7).await, Some(12));
    let writer = locks
        .acquire("catalog:read:7", Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(look(locks, 7).await, None);
    writer.release().await.unwrap();
    // What the policy says is known only then.
    assert!(wrong(locks, 7).await.unwrap_err().is_misconfigured());
}
