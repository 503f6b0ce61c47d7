#![deny(warnings)]
//! `guard =` gives the body its guard, or its guards.

#[path = "../support/mod.rs"]
mod support;

use lock_core::{LockError, LockGuard, LockGuards, distributed_lock};
use support::{assert_send, install};

#[distributed_lock("order:fence:<id>", guard = held)]
async fn fenced(id: u64) -> Result<u64, LockError> {
    let borrowed: &LockGuard = held;
    assert!(borrowed.is_valid());
    assert_eq!(borrowed.name().as_str(), format!("order:fence:{id}"));
    assert_eq!(borrowed.name().label(), "order:fence:<id>");
    let _lost = held.lost();
    Ok(held.fencing_token().await?.get())
}

#[distributed_lock("order:fence:<a>", "order:fence:<b>", guard = held)]
async fn both(a: u64, b: u64) -> Result<Vec<String>, LockError> {
    let _ = (a, b);
    let borrowed: &LockGuards = held;
    assert!(borrowed.is_valid());
    Ok(held.iter().map(|guard| guard.name().to_string()).collect())
}

struct Shop;

impl Shop {
    #[distributed_lock("shop:close:x", guard = held)]
    async fn close(&mut self) -> Result<String, LockError> {
        let name = async { held.name().to_string() };
        Ok(name.await)
    }
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), LockError> {
    install();
    let first = assert_send(fenced(1)).await?;
    assert!(fenced(1).await? > first);
    let names = ["order:fence:3", "order:fence:9"];
    assert_eq!(assert_send(both(9, 3)).await?, names);
    assert_eq!(assert_send(Shop.close()).await?, "shop:close:x");
    Ok(())
}
