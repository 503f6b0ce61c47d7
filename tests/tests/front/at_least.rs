//! Locks that are kept for some time, also after their release, by the process.

use std::time::Duration;

use lock_core::{LockPolicy, LossReason};
use lock_tests::scripted_backend::ScriptedBackend;
use tokio::time::sleep;

use crate::support::{is_free, ms, name, runtime, s, start, timed, took};

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
