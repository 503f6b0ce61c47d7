#![deny(warnings)]
//! The release is awaited before the function returns, and its failure changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lock_core::backend::{Attempt, Backend, Grant, Lease, LockRequest};
use lock_core::{LockError, LockProvider, distributed_lock};

/// Takes its time to release, and fails.
#[derive(Clone, Default)]
struct Flaky(Arc<AtomicU32>);

struct Taken(Lease, Arc<AtomicU32>);

impl Backend for Flaky {
    type Grant = Taken;
    const KIND: &'static str = "flaky";

    async fn try_acquire(&self, _: &LockRequest) -> Result<Attempt<Taken>, LockError> {
        Ok(Attempt::Granted(Taken(
            Lease::unbounded(),
            Arc::clone(&self.0),
        )))
    }

    fn changed(&self, _: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }

    async fn health(&self) -> Result<(), LockError> {
        Ok(())
    }
}

impl Grant for Taken {
    fn lease(&self) -> &Lease {
        &self.0
    }

    async fn release(self) -> Result<(), LockError> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.1.fetch_add(1, Ordering::AcqRel);
        Err(LockError::unavailable("the answer was lost"))
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        std::future::ready(Ok(1))
    }
}

#[distributed_lock("order:flaky:<id>")]
async fn one(locks: &LockProvider, id: u8) -> Result<u8, LockError> {
    let _ = locks;
    Ok(id)
}

#[distributed_lock("order:flaky:<a>", "order:flaky:<b>")]
async fn two(locks: &LockProvider, a: u8, b: u8) -> Result<u8, LockError> {
    let _ = locks;
    Ok(a + b)
}

#[distributed_lock("order:flaky:x")]
async fn fails(locks: &LockProvider) -> Result<(), LockError> {
    let _ = locks;
    Err(LockError::closed())
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() {
    let backend = Flaky::default();
    let released = Arc::clone(&backend.0);
    let locks = LockProvider::new(backend);
    assert_eq!(one(&locks, 3).await.expect("the value stands"), 3);
    assert_eq!(released.load(Ordering::Acquire), 1);
    assert_eq!(two(&locks, 3, 4).await.expect("the value stands"), 7);
    assert_eq!(released.load(Ordering::Acquire), 3);
    assert!(fails(&locks).await.expect_err("its own error").is_closed());
    assert_eq!(released.load(Ordering::Acquire), 4);
}
