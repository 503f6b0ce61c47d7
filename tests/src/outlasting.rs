//! A crowd that waits while what its lock lives on goes away.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_core::{LockName, LockProvider};
use tokio::task::JoinSet;

const CROWD: usize = 5_000;

/// Longer than it takes to serve the crowd one by one.
const LONG: Duration = Duration::from_secs(100);

/// A lock is held at one client and awaited by five thousand at another, when this trouble costs the
/// holder its lock. Then each of the waiters is granted it, one at a time.
///
/// # Panics
///
/// When it is not so.
pub async fn crowd_outlasts(
    holder: &LockProvider,
    waiter: &LockProvider,
    name: &LockName,
    trouble: impl Future<Output = ()>,
) {
    let held = holder.lock(name).unwrap().acquire(LONG).await.unwrap();
    let (lock, inside) = (waiter.lock(name).unwrap(), Arc::new(AtomicBool::new(false)));
    let mut waiters = JoinSet::new();
    for _ in 0..CROWD {
        let (acquire, inside) = (lock.acquire_owned(LONG), Arc::clone(&inside));
        waiters.spawn(async move {
            let guard = acquire.await.unwrap();
            assert!(!inside.swap(true, Ordering::SeqCst), "two were inside");
            tokio::task::yield_now().await;
            assert!(guard.is_valid());
            inside.store(false, Ordering::SeqCst);
            guard.release().await.unwrap();
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(waiters.try_join_next().is_none(), "the lock is held");
    trouble.await;
    held.lost().await;
    drop(held);
    assert_eq!(waiters.join_all().await.len(), CROWD);
}
