//! Locks that are kept for some time, also after their release, by the process.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use lock_core::memory::MemoryBackend;
use lock_core::{LockName, LockPolicy, LockProvider, LossReason};
use lock_tests::scripted_backend::{Play, ScriptedBackend};
use tokio::task::coop;
use tokio::time::{sleep, timeout};

use crate::support::{is_free, ms, name, poll_once, runtime, s, start, timed, took};

const JOB: LockPolicy = LockPolicy::background_job().with_at_least(s(50));

#[tokio::test(start_paused = true)]
async fn a_release_answers_and_the_lock_stays_closed_until_its_time() {
    let scripted = ScriptedBackend::new();
    scripted.hand_over();
    let (here, there) = (scripted.client(), scripted.client());
    let guard = here.acquire(name(), JOB).await.unwrap();
    sleep(s(10)).await;
    let waiter = start(&here, s(600)).await;
    let (elapsed, released) = timed(guard.release()).await;
    took(elapsed, ms(0));
    released.unwrap();
    assert!(here.try_acquire(name(), JOB).await.unwrap().is_none());
    assert!(there.try_acquire(name(), JOB).await.unwrap().is_none());
    let (elapsed, guard) = timed(waiter).await;
    took(elapsed, s(40));
    guard.unwrap().unwrap().release().await.unwrap();
    assert!(is_free(&there).await, "that one was not to be kept");
}

#[tokio::test(start_paused = true)]
async fn work_that_takes_longer_is_released_as_any_other() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let guard = client.acquire(name(), JOB).await.unwrap();
    sleep(s(50)).await;
    guard.release().await.unwrap();
    assert_eq!(scripted.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_was_lost_is_not_kept() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let guard = client.acquire(name(), JOB).await.unwrap();
    scripted.lose(&name(), LossReason::Revoked);
    assert!(guard.release().await.unwrap_err().is_lost());
    sleep(ms(1)).await;
    assert!(is_free(&client).await);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_frees_what_is_kept() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    drop(here.acquire(name(), JOB).await.unwrap());
    sleep(s(1)).await;
    assert!(!is_free(&there).await);
    let (elapsed, end) = timed(here.shutdown(s(60))).await;
    took(elapsed, ms(0));
    assert_eq!((end.released, end.forfeited), (0, 0));
    assert!(is_free(&there).await);
}

#[test]
fn a_guard_that_is_dropped_outside_a_runtime_is_kept_as_well() {
    const BRIEF: LockPolicy = LockPolicy::background_job().with_at_least(ms(300));
    let (scripted, runtime) = (ScriptedBackend::new(), runtime());
    let client = scripted.client();
    let guard = runtime.block_on(client.acquire(name(), BRIEF)).unwrap();
    drop(guard);
    assert!(!runtime.block_on(is_free(&client)));
    let waited = runtime.block_on(client.acquire(name(), s(30)));
    assert!(waited.unwrap().is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_keeps_longer_than_it_holds_is_a_mistake() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let policy = JOB.with_max_hold(s(10));
    let error = client.acquire(name(), policy).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(
        client
            .acquire_all([name()], policy)
            .await
            .unwrap_err()
            .is_misconfigured()
    );
    let too_long = JOB.with_at_least(s(8 * 24 * 3600));
    let error = client.acquire(name(), too_long).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert_eq!(scripted.tried(&name()), 0);
    let guard = client.acquire(name(), JOB.with_max_hold(s(50))).await;
    assert!(guard.unwrap().held_for() < Duration::from_secs(1));
}

/// The other one is held elsewhere, or the caller leaves.
#[tokio::test(start_paused = true)]
async fn a_part_of_several_locks_is_not_kept_for_a_caller_without_all() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let names = ["order:process:42", "order:process:43"];
    let _held = there.acquire(names[1], Duration::ZERO).await.unwrap();
    let refused = here.acquire_all(names, JOB).await;
    assert!(refused.unwrap_err().is_contended());
    sleep(ms(1)).await;
    assert!(is_free(&there).await);
    let waiting = here.acquire_all(names, JOB.with_wait(s(60)));
    timeout(s(1), waiting).await.unwrap_err();
    sleep(ms(1)).await;
    assert!(is_free(&there).await);
}

#[tokio::test(start_paused = true)]
async fn several_locks_are_kept_from_when_each_was_acquired() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let guards = here.acquire_all([name()], JOB).await.unwrap();
    guards.release().await.unwrap();
    assert!(!is_free(&there).await);
    let (elapsed, guard) = timed(there.acquire(name(), s(600))).await;
    took(elapsed, s(50));
    drop(guard.unwrap());
}

/// It was granted in a poll in which the task had done its share already.
#[tokio::test(start_paused = true)]
async fn a_lock_that_its_caller_has_not_seen_is_not_kept() {
    let client = LockProvider::new(MemoryBackend::new());
    while coop::has_budget_remaining() {
        let _ = pin!(coop::consume_budget()).poll(&mut Context::from_waker(Waker::noop()));
    }
    let mut acquire = client.lock(name()).unwrap().acquire_owned(JOB);
    assert!(poll_once(&mut acquire).is_none());
    assert!(!is_free(&client).await, "it has it");
    drop(acquire);
    sleep(ms(1)).await;
    assert!(is_free(&client).await);
}

/// Others can have it by then, so that callers here are not kept from it either.
#[tokio::test(start_paused = true)]
async fn a_lock_that_is_lost_while_it_is_kept_is_kept_no_more() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    client
        .acquire(name(), JOB)
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    let waiter = start(&client, s(600)).await;
    sleep(s(10)).await;
    scripted.lose(&name(), LossReason::Disconnected);
    let (elapsed, guard) = timed(waiter).await;
    took(elapsed, ms(0));
    assert!(guard.unwrap().unwrap().is_valid());
}

/// No task is there that could end it.
#[test]
fn a_shutdown_frees_what_is_kept_outside_of_a_runtime() {
    let (scripted, runtime) = (ScriptedBackend::new(), runtime());
    let (here, there) = (scripted.client(), scripted.client());
    drop(runtime.block_on(here.acquire(name(), JOB)).unwrap());
    assert!(!runtime.block_on(is_free(&there)));
    let end = async { timeout(s(10), here.shutdown(s(40))).await };
    runtime.block_on(end).expect("nothing is waited for");
    let waited = runtime.block_on(there.acquire(name(), s(10)));
    assert!(waited.unwrap().is_valid());
}

/// A loss as well.
#[test]
fn a_lock_that_is_kept_outside_of_a_runtime_can_be_lost() {
    let (scripted, runtime) = (ScriptedBackend::new(), runtime());
    let client = scripted.client();
    drop(runtime.block_on(client.acquire(name(), JOB)).unwrap());
    scripted.lose(&name(), LossReason::Disconnected);
    assert!(runtime.block_on(is_free(&client)));
}

/// What it was handed goes back first, since the store was not asked to keep it.
#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_wait_is_granted_what_another_has_left() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::DoneThenLate(ms(500))]);
    scripted.every_release(Play::Late(ms(50)));
    let leaves = start(&client, s(60)).await;
    let job = start(&client, JOB).await;
    sleep(ms(100)).await;
    leaves.abort();
    let guard = job.await.unwrap().expect("it is free");
    drop(guard);
    sleep(s(1)).await;
    assert!(!is_free(&client).await, "it is kept");
}

/// The store would keep it closed for that one as well, and after a crash of that one.
#[tokio::test(start_paused = true)]
async fn what_the_store_was_asked_to_keep_serves_no_other_caller() {
    let scripted = ScriptedBackend::new();
    scripted.hand_over();
    let (here, there) = (scripted.client(), scripted.client());

    // A caller that leaves while its answer is on its way.
    scripted.tries([Play::DoneThenLate(ms(20))]);
    let leaves = start(&here, JOB).await;
    let next = start(&here, s(60)).await;
    leaves.abort();
    let guard = next.await.unwrap().unwrap();
    assert_eq!(scripted.tried(&name()), 2);
    guard.release().await.unwrap();

    // A part of several of which another is held.
    let last = LockName::new("z", "last", 1).unwrap();
    let _held = there.acquire(last.clone(), ms(0)).await.unwrap();
    scripted.tries([Play::Answer, Play::Late(ms(20))]);
    let all = {
        let here = here.clone();
        tokio::spawn(async move { here.acquire_all([name(), last], JOB).await })
    };
    sleep(ms(10)).await;
    let next = start(&here, s(60)).await;
    assert!(all.await.unwrap().unwrap_err().is_contended());
    next.await.unwrap().unwrap().release().await.unwrap();
    assert_eq!(scripted.tried(&name()), 4);
}
