//! Whether a lock can be acquired.

use std::time::Duration;

use lock_core::{LockError, LockName, LockProvider};

/// Whether a try is answered and refused. One that is not leaves nothing behind: what it took is
/// released when this returns, and not only some time after.
pub async fn is_held<N>(client: &LockProvider, name: N) -> bool
where
    N: TryInto<LockName, Error: Into<LockError>>,
{
    let lock = client.lock(name).unwrap();
    let Some(guard) = lock.try_acquire(Duration::ZERO).await.unwrap() else {
        return true;
    };
    guard.release().await.unwrap();
    false
}
