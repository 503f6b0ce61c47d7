//! The shutdown of a provider closes what its backend keeps open.

use std::time::Duration;

use lock_core::{LockProvider, LossReason};

use super::{PATIENCE, take, wait_for};
use crate::{Harness, eventually};

const GRACE: Duration = Duration::from_millis(100);

async fn is_closed(harness: &Harness) {
    eventually("nothing is open", || async {
        harness.store.open_connections().await == 0
    })
    .await;
}

/// One that waits has a connection of its own to hear of a release by.
async fn waits_in_vain(harness: &Harness, here: &LockProvider, there: &LockProvider) {
    let name = harness.name();
    let held = take(there, &name).await;
    let lock = here.lock(name).unwrap();
    assert!(lock.try_acquire(GRACE).await.unwrap().is_none());
    held.release().await.unwrap();
}

/// An installed provider lives as long as the process, and a guard can be kept.
pub async fn a_shutdown_closes_the_connections_whatever_clones_and_guards_live(harness: Harness) {
    let (here, there) = (harness.client().await, harness.client().await);
    let (clone, lock) = (here.clone(), here.lock(harness.name()).unwrap());
    waits_in_vain(&harness, &here, &there).await;
    let kept = take(&here, &harness.name()).await;
    let (forfeited, name) = (take(&here, &harness.name()).await, harness.name());
    let released = take(&here, &name).await;
    released.release().await.unwrap();
    there.shutdown(GRACE).await;
    assert!(kept.is_valid(), "it was another provider that ended");
    here.shutdown(GRACE).await;
    is_closed(&harness).await;
    for guard in [&kept, &forfeited] {
        assert!(!guard.is_valid());
        assert_eq!(guard.lost().await, LossReason::Shutdown);
    }
    assert!(lock.acquire(PATIENCE).await.unwrap_err().is_closed());
    assert!(!clone.health().await.is_up());
    assert!(forfeited.release().await.unwrap_err().is_lost());
    drop(kept);
    is_closed(&harness).await;
    // What it left is free for a process that starts now.
    let next = harness.client().await;
    take(&next, &name).await.release().await.unwrap();
}

/// Each is shut down by the part of the application that has it.
pub async fn the_last_of_several_providers_over_one_backend_closes_it(harness: Harness) {
    let provider = harness.store.providers_of_one_backend().await;
    let [first, second, dropped] = [0; 3].map(|_| provider());
    drop(dropped);
    let name = harness.name();
    first.shutdown(GRACE).await;
    first.shutdown(GRACE).await;
    let guard = wait_for(&second, &name).await;
    assert!(guard.is_valid());
    guard.release().await.unwrap();
    assert!(second.health().await.is_up());
    second.shutdown(GRACE).await;
    is_closed(&harness).await;
    // The backend that is kept is of no use to another provider: it says so, and does not hang.
    if harness.store.stays_closed() {
        let late = provider();
        let refused = late.lock(name).unwrap().acquire(PATIENCE).await;
        assert!(refused.unwrap_err().is_closed());
        assert!(!late.health().await.is_up());
        late.shutdown(GRACE).await;
    }
}

/// A deadline of the application around it, a second signal, two parts that do not know of each other.
pub async fn a_shutdown_that_was_cancelled_or_is_called_again_closes_as_well(harness: Harness) {
    for at in [0, 1, 5, 20, 50] {
        let client = harness.client().await;
        let held = take(&client, &harness.name()).await;
        let cancelled = tokio::time::timeout(
            Duration::from_millis(at),
            client.shutdown(Duration::from_millis(10)),
        );
        let was_cancelled = cancelled.await.is_err();
        assert!(was_cancelled || !held.is_valid());
        let (one, two) = (client.clone(), client.clone());
        let patient = tokio::spawn(async move { one.shutdown(PATIENCE).await });
        tokio::join!(two.shutdown(GRACE), client.shutdown(Duration::ZERO));
        patient.await.unwrap();
        assert!(!held.is_valid());
        is_closed(&harness).await;
    }
}
