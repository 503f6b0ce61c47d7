#![deny(warnings)]
//! Above `#[tokio::main]`, on unsafe functions, on nested functions, twice on one function.

#[path = "../support/mod.rs"]
mod support;

use lock_core::{LockError, LockProvider, distributed_lock};
use support::{assert_send, hold, install, is_held, locks};

#[distributed_lock("order:unsafe:<id>", provider = LockProvider::installed()?)]
async unsafe fn dangerous(id: u64) -> Result<u64, LockError> {
    // SAFETY: nothing happens.
    unsafe { harmless() };
    Ok(id)
}

unsafe fn harmless() {}

#[distributed_lock("order:outer:<id>", wait = "0s", guard = outer)]
#[distributed_lock("order:inner:<id>", wait = "0s", guard = inner)]
async fn twice(locks: &LockProvider, id: u64) -> Result<(String, String), LockError> {
    assert!(is_held(locks, &format!("order:outer:{id}")).await);
    Ok((outer.name().to_string(), inner.name().to_string()))
}

mod renamed {
    pub mod locks {
        pub use lock_core::*;
    }
}

#[distributed_lock("order:renamed:<id>", crate = renamed::locks, wait = "1s", guard = held)]
async fn renamed_crate(id: u64) -> Result<String, LockError> {
    let _ = id;
    Ok(held.name().to_string())
}

#[distributed_lock("job:main", provider = install())]
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), LockError> {
    assert!(is_held(LockProvider::installed()?, "job:main").await);

    // SAFETY: it is not dangerous.
    assert_eq!(unsafe { dangerous(1) }.await?, 1);
    let locks = locks();
    let names = assert_send(twice(&locks, 4)).await?;
    assert_eq!(
        names,
        ("order:outer:4".to_owned(), "order:inner:4".to_owned())
    );
    let guard = hold(&locks, "order:inner:4").await;
    assert!(twice(&locks, 4).await.expect_err("held").is_contended());
    guard.release().await?;
    assert!(!is_held(&locks, "order:outer:4").await);
    assert_eq!(renamed_crate(1).await?, "order:renamed:1");

    #[distributed_lock("order:nested:<id>")]
    async fn nested(id: u64) -> Result<u64, LockError> {
        Ok(id)
    }
    assert_eq!(nested(3).await?, 3);
    Ok(())
}
