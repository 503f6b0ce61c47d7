//! A lock that is lost says so, and one that is not says nothing.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_core::LockPolicy;

use super::{BOUND, take, wait_for};
use crate::{Harness, Lateness, Queued, eventually};

/// All that ask learn of it, then and later.
pub async fn a_loss_fires_once_and_stays(harness: Harness) {
    let (client, name) = (harness.client().await, harness.name());
    let guard = take(&client, &name).await;
    let (first, second) = (tokio::spawn(guard.lost()), tokio::spawn(guard.lost()));
    let never_polled = guard.lost();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!first.is_finished() && guard.is_valid() && guard.check().is_ok());

    let lateness = Lateness::of(harness.store.noticed_within());
    harness.store.lose(&name).await;
    let reason = first.await.unwrap();
    lateness.at_most(BOUND).await;
    assert!(!guard.is_valid());
    assert_eq!(second.await.unwrap(), reason);
    assert_eq!(never_polled.await, reason);
    for _ in 0..3 {
        assert_eq!(guard.lost().await, reason);
        assert!(!guard.is_valid());
        let error = guard.check().unwrap_err();
        assert!(error.is_lost(), "{error}");
    }
}

/// Says when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The work stops where it is, and its caller gets an error.
pub async fn protected_work_is_dropped_when_the_lock_is_lost(harness: Harness) {
    let (client, name) = (harness.client().await, harness.name());
    let guard = take(&client, &name).await;
    let dropped = Arc::new(AtomicBool::new(false));
    let work = Dropped(Arc::clone(&dropped));
    let task = tokio::spawn(async move {
        let work = async move {
            let _work = work;
            pending::<()>().await;
        };
        let outcome = guard.protect(work).await;
        (outcome, guard)
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let lateness = Lateness::of(harness.store.noticed_within());
    harness.store.lose(&name).await;
    let (outcome, guard) = task.await.unwrap();
    lateness.at_most(BOUND).await;
    assert!(dropped.load(Ordering::SeqCst));
    assert!(outcome.unwrap_err().is_lost());
    // What is begun now does not run at all.
    let begun = guard.protect(async { unreachable!("work without a lock") });
    assert!(begun.await.unwrap_err().is_lost());
}

/// The body was done, but the lock was gone before: what the outcome is worth is not known.
pub async fn work_that_ends_after_its_lock_was_lost_is_lost(harness: Harness) {
    let (client, name) = (harness.client().await, harness.name());
    let guard = take(&client, &name).await;
    let work = async {
        harness.store.lose(&name).await;
        // Not an await point at which the loss could stop it.
        let started = std::time::Instant::now();
        while guard.is_valid()
            && started.elapsed() < harness.store.noticed_within() + Duration::from_secs(5)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        "done"
    };
    assert!(guard.protect(work).await.unwrap_err().is_lost());

    // The same through `run`, which takes the lock itself.
    let name = harness.name();
    let work = async {
        harness.store.lose(&name).await;
        pending::<()>().await;
    };
    let outcome = client
        .lock(&name)
        .unwrap()
        .run(LockPolicy::user_request(), work)
        .await;
    assert!(outcome.unwrap_err().is_lost());
}

/// A release is not a loss, for any that listen.
pub async fn a_release_fires_no_loss(harness: Harness) {
    let (client, name) = (harness.client().await, harness.name());
    for dropped in [true, false] {
        let guard = wait_for(&client, &name).await;
        let (early, late) = (tokio::spawn(guard.lost()), guard.lost());
        tokio::time::sleep(Duration::from_millis(5)).await;
        if dropped {
            drop(guard);
        } else {
            guard.release().await.unwrap();
        }
        // Another holder's loss is not ours either.
        let next = wait_for(&client, &name).await;
        harness.store.lose(&name).await;
        next.lost().await;
        drop(next);
        let late = tokio::spawn(late);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!early.is_finished() && !late.is_finished());
        early.abort();
        late.abort();
    }
}

/// Work that was spawned stops by its token, and that of a lock that was released does not.
pub async fn a_cancellation_token_fires_at_the_loss_and_not_at_a_release(harness: Harness) {
    let (client, name, released) = (harness.client().await, harness.name(), harness.name());
    let other = take(&client, &released).await;
    let calm = other.cancellation_token();
    other.release().await.unwrap();
    let guard = take(&client, &name).await;
    let token = guard.cancellation_token();
    let spawned = tokio::spawn({
        let token = token.clone();
        async move { token.run_until_cancelled(pending::<()>()).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!token.is_cancelled() && !spawned.is_finished());
    let lateness = Lateness::of(harness.store.noticed_within());
    harness.store.lose(&name).await;
    assert!(spawned.await.unwrap().is_none(), "the work has stopped");
    lateness.at_most(BOUND).await;
    assert!(!guard.is_valid() && !calm.is_cancelled());
    assert!(guard.cancellation_token().is_cancelled());
}

/// The guard stays where it is, and callers who do not wait come again and again: each way of asking has
/// a lock of its own, so that none is helped by another.
pub async fn a_lost_guard_that_is_kept_frees_its_lock_for_callers_who_only_try(harness: Harness) {
    let client = harness.client().await;
    let names = [
        harness.name(),
        harness.name(),
        harness.name(),
        harness.name(),
    ];
    let [tried, run, claimed, all] = &names;
    let mut kept = Vec::new();
    for name in &names {
        // The loss of the one before can have cost the connection.
        kept.push(wait_for(&client, name).await);
        harness.store.lose(name).await;
    }
    eventually("a try is granted", || async {
        let lock = client.lock(tried).unwrap();
        matches!(lock.try_acquire(Duration::ZERO).await, Ok(Some(_)))
    })
    .await;
    eventually(
        "a job that is skipped when its lock is held runs",
        || async {
            let lock = client.lock(run).unwrap();
            let ran = lock.run(LockPolicy::background_job(), async {}).await;
            ran.is_ok()
        },
    )
    .await;
    eventually("a claim gets it", || async {
        let guards = client.claim([claimed], 1).await;
        guards.is_ok_and(|guards| guards.len() == 1)
    })
    .await;
    eventually("all of several are granted", || async {
        let guards = client.acquire_all([all], Duration::ZERO).await;
        guards.is_ok()
    })
    .await;
    assert!(kept.iter().all(|guard| !guard.is_valid()));
}

/// Renewals keep it, if it needs any. A loss counts unless a process, or a server, has waited for a
/// processor so long that no renewal could be in time; that shows nothing, and it is held once more.
pub async fn a_guard_that_is_held_for_five_leases_is_not_lost(harness: Harness) {
    let (client, name) = (harness.client().await, harness.name());
    let lease = harness.store.lease().unwrap_or(Duration::from_millis(300));
    loop {
        let queued = Queued::here_and_there();
        let guard = take(&client, &name).await;
        let lost = tokio::spawn(guard.lost());
        let held = guard.protect(tokio::time::sleep(lease * 5)).await;
        if held.is_err() && queued.starves(lease) {
            continue;
        }
        held.unwrap();
        assert!(guard.is_valid() && !lost.is_finished());
        assert!(guard.held_for() >= lease * 5);
        lost.abort();
        guard.release().await.unwrap();
        break;
    }
}

/// What all locks of a client live on is gone.
pub async fn the_loss_of_everything_is_seen_by_every_guard(harness: Harness) {
    let client = harness.client().await;
    let guards = [
        take(&client, &harness.name()).await,
        take(&client, &harness.name()).await,
    ];
    let lost = guards.each_ref().map(|guard| tokio::spawn(guard.lost()));
    let lateness = Lateness::of(harness.store.noticed_within());
    harness.store.lose_all().await;
    for lost in lost {
        lost.await.unwrap();
    }
    lateness.at_most(BOUND).await;
    for guard in guards {
        assert!(!guard.is_valid());
        assert!(guard.release().await.unwrap_err().is_lost());
    }
    // And the client goes on.
    let name = harness.name();
    eventually("locks can be had again", || async {
        matches!(
            client
                .lock(&name)
                .unwrap()
                .try_acquire(Duration::ZERO)
                .await,
            Ok(Some(_))
        )
    })
    .await;
}
