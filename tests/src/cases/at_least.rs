//! Locks that are kept at least so long.

use std::time::{Duration, SystemTime};

use lock_core::{LockName, LockPolicy, LockProvider};
use tokio::time::{Instant, sleep, sleep_until};

use super::{BOUND, PATIENCE, wait_for};
use crate::chaos::seconds;
use crate::{Harness, Lateness, is_held};

/// How long locks are kept here: longer than a release takes on a busy machine.
const KEPT: Duration = Duration::from_secs(1);

/// Tries once, and keeps what it is granted.
const EACH: LockPolicy = LockPolicy::background_job().with_at_least(KEPT);

/// Returns when the lock is free, and how long that took.
async fn free_after(client: &LockProvider, name: &LockName, since: Instant) -> Duration {
    wait_for(client, name).await.release().await.unwrap();
    since.elapsed()
}

/// The release itself answers before. Twice: what has kept it once does not keep it longer.
pub async fn a_released_lock_stays_closed_until_its_time(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    for _ in 0..2 {
        let since = Instant::now();
        let guard = here.acquire(&name, EACH.with_wait(PATIENCE)).await.unwrap();
        guard.fencing_token().await.unwrap();
        guard.release().await.unwrap();
        assert!(since.elapsed() < KEPT, "the release has waited");
        assert!(is_held(&here, &name).await && is_held(&there, &name).await);
        if let Some(until) = there.holder(&name).await.unwrap().unwrap().until() {
            let left = until.duration_since(SystemTime::now()).unwrap_or_default();
            assert!(left <= KEPT, "{left:?}");
        }
        let lateness = Lateness::of(KEPT);
        assert!(free_after(&there, &name, since).await >= KEPT);
        lateness.at_most(BOUND).await;
        // By a try, and not by a look: one that was granted for a waiter that has left is being given back.
        assert!(!is_held(&there, &name).await);
    }
}

/// From another client, and behind others of the same one.
pub async fn a_waiter_is_granted_a_kept_lock_when_its_time_is_over(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    for waiting in [&here, &there] {
        let since = Instant::now();
        let guard = here.acquire(&name, EACH.with_wait(PATIENCE)).await.unwrap();
        let waiting = {
            let (waiting, name) = (waiting.clone(), name.clone());
            tokio::spawn(async move { free_after(&waiting, &name, since).await })
        };
        sleep(Duration::from_millis(50)).await;
        let lateness = Lateness::of(KEPT);
        drop(guard);
        assert!(waiting.await.unwrap() >= KEPT);
        lateness.at_most(BOUND).await;
    }
}

/// The time counts from when it was acquired.
pub async fn a_lock_that_is_held_longer_is_free_after_its_release(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    let guard = here.acquire(&name, EACH.with_wait(PATIENCE)).await.unwrap();
    sleep(KEPT).await;
    assert!(guard.is_valid() && is_held(&there, &name).await);
    guard.release().await.unwrap();
    let lock = there.lock(&name).unwrap();
    lock.acquire(BOUND).await.unwrap().release().await.unwrap();
}

/// Another may have done its work meanwhile.
pub async fn a_kept_lock_that_is_lost_is_free(harness: Harness) {
    const LONG: LockPolicy = LockPolicy::background_job().with_at_least(Duration::from_secs(600));
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    let guard = here.acquire(&name, LONG).await.unwrap();
    harness.store.lose(&name).await;
    tokio::time::timeout(PATIENCE, guard.lost()).await.unwrap();
    guard.release().await.unwrap_err();
    wait_for(&there, &name).await.release().await.unwrap();
}

/// Of two permits one is kept, and the other is free.
pub async fn a_permit_is_kept_as_a_lock_is(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    let (here, there) = (
        here.lock(&name).unwrap().permits(2),
        there.lock(&name).unwrap().permits(2),
    );
    let since = Instant::now();
    let kept = here.acquire(EACH).await.unwrap();
    let slot = kept.name().clone();
    kept.release().await.unwrap();
    let other = there.acquire(Duration::ZERO).await.unwrap();
    assert_ne!(*other.name(), slot);
    assert!(here.try_acquire(Duration::ZERO).await.unwrap().is_none());
    let next = there.acquire(PATIENCE).await.unwrap();
    assert_eq!(*next.name(), slot);
    assert!(since.elapsed() >= KEPT);
}

/// While it lives.
pub async fn a_process_keeps_what_it_has_released(harness: Harness) {
    let (client, name, mut child) = (
        harness.client().await,
        harness.name(),
        harness.child().await,
    );
    let since = Instant::now();
    let asked = format!("acquire {name} 0 at_least={}", KEPT.as_millis());
    assert_eq!(child.ask(&asked).await, "granted");
    child.release().await;
    assert!(is_held(&client, &name).await);
    assert_eq!(child.ask(&asked).await, "contended");
    assert!(free_after(&client, &name, since).await >= KEPT);
}

/// Before its release and after it: a store that keeps it by itself does so in each case.
pub async fn what_a_process_keeps_that_is_killed_ends_with_it_or_in_time(harness: Harness) {
    /// Longer than the lease of any store.
    const LONG: Duration = Duration::from_secs(4);
    let client = harness.client().await;
    for is_released in [false, true] {
        let (name, mut child) = (harness.name(), harness.child().await);
        let since = Instant::now();
        let asked = format!("acquire {name} 0 at_least={}", LONG.as_millis());
        assert_eq!(child.ask(&asked).await, "granted");
        if is_released {
            child.release().await;
        }
        assert!(is_held(&client, &name).await);
        child.kill().await;
        let lateness = Lateness::of(match harness.store.keeps() {
            true => LONG.saturating_sub(since.elapsed()),
            false => harness.store.granted_after_a_kill(),
        });
        assert_eq!(
            free_after(&client, &name, since).await >= LONG,
            harness.store.keeps()
        );
        lateness.at_most(BOUND).await;
    }
}

/// Three processes, each with a timer that is late by 300 ms more than the one before: at each tick one of them does
/// the job, which is over in a moment. For so many ticks as the environment says for campaigns.
pub async fn late_timers_do_not_run_a_short_job_again(harness: Harness) {
    const TICK: Duration = Duration::from_secs(1);
    const APART: Duration = Duration::from_millis(300);
    const KEPT: Duration = Duration::from_millis(800);
    let name = harness.name();
    let asked = format!("acquire {name} 0 at_least={}", KEPT.as_millis());
    let ticks = seconds(Duration::from_secs(5)).as_secs();
    let mut children = Vec::new();
    for _ in 0..3 {
        children.push(harness.child().await);
    }
    let start = Instant::now();
    let mut last: Option<Instant> = None;
    let mut was_late = false;
    for tick in 0..u32::try_from(ticks).unwrap() {
        let (mut runs, mut is_late) = (0, false);
        for (number, child) in (0..).zip(&mut children) {
            let due = start + TICK * tick + APART * number;
            sleep_until(due).await;
            let began = Instant::now();
            if child.ask(&asked).await == "granted" {
                let since = last.map(|last| last.elapsed());
                assert!(since.is_none_or(|since| since >= KEPT), "{since:?}");
                last = Some(began);
                runs += 1;
                sleep(Duration::from_millis(5)).await;
                child.release().await;
            }
            // A tick and the next are 200 ms further apart than the lock is kept: the machine may be later.
            is_late |= due.elapsed() > (TICK - KEPT) / 2;
        }
        // What is late is in the way of the next tick, and comes after the end of its own.
        assert!(runs == 1 || is_late || was_late, "{runs} at tick {tick}");
        was_late = is_late;
    }
}
