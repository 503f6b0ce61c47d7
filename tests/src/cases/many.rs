//! Several locks together.

use std::time::Duration;

use lock_core::{LockErrorKind, LockGuard, LockName, LockPolicy};
use tokio::task::JoinSet;

use super::{BOUND, PATIENCE, take, wait_for};
use crate::{Harness, Lateness, is_held};

fn names_of<'a>(guards: impl IntoIterator<Item = &'a LockGuard>) -> Vec<LockName> {
    guards
        .into_iter()
        .map(|guard| guard.name().clone())
        .collect()
}

/// In one order, each once.
pub async fn all_of_several_locks_are_taken_each_once(harness: Harness) {
    let (here, there) = (harness.client().await, harness.client().await);
    let mut names = [harness.name(), harness.name(), harness.name()];
    let asked = [&names[2], &names[0], &names[2], &names[1], &names[0]];
    let guards = here
        .acquire_all(asked, LockPolicy::background_job())
        .await
        .unwrap();
    names.sort();
    assert_eq!(names_of(guards.iter()), names);
    assert!(guards.is_valid());
    for name in &names {
        assert!(is_held(&there, name).await);
    }
    guards.protect(async {}).await.unwrap();
    guards.release().await.unwrap();
    for name in &names {
        drop(wait_for(&there, name).await);
    }
}

/// No names are a mistake, not a lock.
pub async fn no_names_at_all_are_refused(harness: Harness) {
    let client = harness.client().await;
    let none: [LockName; 0] = [];
    let error = client
        .acquire_all(none, LockPolicy::user_request())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::InvalidName);
    let none: [LockName; 0] = [];
    assert!(client.claim(none, 5).await.unwrap().is_empty());
}

/// No caller keeps a part and waits for the rest when the wait is over.
pub async fn all_or_none_when_one_of_them_is_held(harness: Harness) {
    let (here, there) = (harness.client().await, harness.client().await);
    let names = [harness.name(), harness.name(), harness.name()];
    for held in &names {
        let guard = wait_for(&there, held).await;
        for wait in [0, 60].map(Duration::from_millis) {
            let lateness = Lateness::of(wait);
            let error = here.acquire_all(&names, wait).await.unwrap_err();
            lateness.check(BOUND).await;
            assert!(error.is_contended(), "{error}");
            assert_eq!(error.lock(), Some(held));
            // Those before it were released, in the background: the next look finds them free.
            for free in names.iter().filter(|name| *name != held) {
                let guard = wait_for(&there, free).await;
                guard.release().await.unwrap();
            }
        }
        guard.release().await.unwrap();
    }
    // The wait is for all together, and enough.
    let guards = [
        wait_for(&there, &names[0]).await,
        wait_for(&there, &names[2]).await,
    ];
    let waiting = {
        let (here, names) = (here.clone(), names.clone());
        tokio::spawn(async move { here.acquire_all(&names, PATIENCE).await })
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(guards);
    assert_eq!(waiting.await.unwrap().unwrap().len(), 3);
}

/// From two clients and within one, in all orders.
pub async fn opposite_orders_never_deadlock(harness: Harness) {
    let (here, there) = (harness.client().await, harness.client().await);
    let names = [harness.name(), harness.name(), harness.name()];
    let mut workers = JoinSet::new();
    for (number, client) in [&here, &there, &here, &there].into_iter().enumerate() {
        let (client, mut names) = (client.clone(), names.clone());
        workers.spawn(async move {
            for round in 0..50 {
                names.rotate_left(number % 3);
                if round % 2 == number % 2 {
                    names.reverse();
                }
                let guards = client.acquire_all(&names, PATIENCE).await.unwrap();
                tokio::task::yield_now().await;
                if round % 3 == 0 {
                    drop(guards);
                } else {
                    guards.release().await.unwrap();
                }
            }
        });
    }
    workers.join_all().await;
}

/// Those that are free, and no more than were asked for.
pub async fn a_claim_gives_what_is_free_up_to_the_limit(harness: Harness) {
    let (here, there) = (harness.client().await, harness.client().await);
    let mut names: Vec<_> = (0..6).map(|_| harness.name()).collect();
    names.sort();
    let elsewhere = take(&there, &names[1]).await;
    let own = take(&here, &names[4]).await;

    assert!(here.claim(&names, 0).await.unwrap().is_empty());
    let two = here.claim(names.iter().rev(), 2).await.unwrap();
    assert_eq!(two.len(), 2);
    drop(two);

    let free = [&names[0], &names[2], &names[3], &names[5]].map(Clone::clone);
    let all = loop {
        // What was claimed and dropped may be on its way back.
        let all = here.claim(&names, usize::MAX).await.unwrap();
        if all.len() == free.len() {
            break all;
        }
    };
    assert_eq!(names_of(&all), free);
    assert!(all.iter().all(LockGuard::is_valid));
    for name in &names {
        assert!(is_held(&there, name).await && is_held(&here, name).await);
    }
    assert!(there.claim(&names, 6).await.unwrap().is_empty());
    all[0].fencing_token().await.unwrap();

    drop(all);
    elsewhere.release().await.unwrap();
    own.release().await.unwrap();
    for name in &names {
        drop(wait_for(&there, name).await);
    }
}

/// Workers that share jobs: each job is done by one at a time, and none is left.
pub async fn claims_from_two_clients_share_the_names_without_an_overlap(harness: Harness) {
    let names: Vec<_> = (0..40).map(|_| harness.name()).collect();
    for _ in 0..5 {
        let mut workers = JoinSet::new();
        for _ in 0..4 {
            let (client, names) = (harness.client().await, names.clone());
            workers.spawn(async move { client.claim(&names, 10).await.unwrap() });
        }
        let claimed = workers.join_all().await;
        assert!(claimed.iter().all(|guards| guards.len() <= 10));
        let mut seen: Vec<_> = claimed.iter().flatten().map(LockGuard::name).collect();
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count, "one name was claimed twice");
        assert!(count >= 10, "the first to come gets all it asked for");
        for guard in claimed.into_iter().flatten() {
            guard.release().await.unwrap();
        }
    }
}
