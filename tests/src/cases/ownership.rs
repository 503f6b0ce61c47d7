//! Who may give back a lock.
//!
//! A second release is refused by the compiler:
//!
//! ```compile_fail,E0382
//! # async fn twice(guard: lock_core::LockGuard) -> Result<(), lock_core::LockError> {
//! guard.release().await?;
//! guard.release().await
//! # }
//! ```

use super::{take, wait_for};
use crate::{Harness, eventually, is_held};

/// The end of a guard is the end of its own hold and of no other.
pub async fn what_is_left_of_a_released_guard_does_not_touch_the_next(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    let first = take(&here, &name).await;
    let lost = first.lost();
    first.release().await.unwrap();
    let second = take(&here, &name).await;
    drop(lost);
    assert!(second.is_valid());
    assert!(is_held(&there, &name).await);
    second.release().await.unwrap();

    drop(take(&here, &name).await);
    let third = wait_for(&there, &name).await;
    assert!(is_held(&here, &name).await);
    third.release().await.unwrap();
}

/// A stale guard, dropped or released, leaves the lock to who has it now.
pub async fn a_guard_of_an_earlier_acquisition_never_releases_a_later_one(harness: Harness) {
    let (here, there, third) = (
        harness.client().await,
        harness.client().await,
        harness.client().await,
    );
    for dropped in [true, false] {
        let name = harness.name();
        let stale = take(&here, &name).await;
        harness.store.lose(&name).await;
        let current = wait_for(&there, &name).await;
        if dropped {
            drop(stale);
        } else {
            let error = stale.release().await.unwrap_err();
            assert!(error.is_lost(), "{error}");
        }
        assert!(
            is_held(&third, &name).await,
            "the stale guard released the lock of another"
        );
        assert!(current.is_valid());
        current.release().await.unwrap();
    }
}

/// The caller must learn that it was not alone to the end.
pub async fn the_release_of_a_lock_that_was_lost_is_an_error(harness: Harness) {
    let (client, name) = (harness.client().await, harness.name());
    let guard = take(&client, &name).await;
    harness.store.lose(&name).await;
    let error = guard.release().await.unwrap_err();
    assert!(error.is_lost(), "{error}");
    assert_eq!(error.lock(), Some(&name));

    // Also when it was known before.
    let name = harness.name();
    let guard = take(&client, &name).await;
    harness.store.lose(&name).await;
    eventually("the loss is seen", || async { !guard.is_valid() }).await;
    let error = guard.release().await.unwrap_err();
    assert!(error.is_lost(), "{error}");
}
