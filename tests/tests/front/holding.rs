//! While a lock is held: its longest hold, its lease, and its loss.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use lock_core::backend::{BootClock, Clock, TokioClock};
use lock_core::memory::MemoryBackend;
use lock_core::{LockPolicy, LockProvider, LossReason};
use lock_tests::scripted_backend::{Play, ScriptedBackend};
use tokio::sync::oneshot;
use tokio::time::{advance, sleep};

use crate::support::{
    Counting, is_free, ms, name, poll_once, runtime, s, start, take, timed, took,
};

/// Leases of three seconds on tokio's clock, without renewals.
fn leases() -> (MemoryBackend, LockProvider) {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let store = MemoryBackend::with_lease(s(3), clock);
    (store.clone(), LockProvider::new(store))
}

const MAX_HOLD: LockPolicy = LockPolicy::user_request().with_max_hold(s(10));

#[tokio::test(start_paused = true)]
async fn the_longest_hold_stops_the_work_and_frees_the_lock() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let lock = client.lock(name()).unwrap();
    let (elapsed, result) = timed(lock.run(MAX_HOLD, pending::<()>())).await;
    took(elapsed, s(10));
    let error = result.unwrap_err();
    assert!(
        error.is_lost() && error.to_string().contains("longer than its policy"),
        "{error}"
    );
    sleep(ms(1)).await;
    assert!(is_free(&client).await);
}

#[tokio::test(start_paused = true)]
async fn the_longest_hold_bounds_work_that_is_never_polled_again() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let hung = here.lock(name()).unwrap().acquire(MAX_HOLD).await.unwrap();
    let next = start(&here, s(60)).await;
    sleep(s(10) - ms(1)).await;
    assert!(hung.is_valid() && !next.is_finished());
    sleep(ms(1)).await;
    assert!(!hung.is_valid());
    let (elapsed, next) = timed(next).await;
    let next = next.unwrap().unwrap();
    assert!(elapsed <= ms(200), "{elapsed:?}");
    assert_eq!(hung.lost().await, LossReason::MaxHold);
    // The hung one wakes up and does not touch what is another's now.
    assert!(hung.fencing_token().await.unwrap_err().is_lost());
    assert!(hung.release().await.unwrap_err().is_lost());
    assert!(next.is_valid() && !is_free(&there).await);
}

#[tokio::test]
async fn the_longest_hold_outlives_the_runtime_that_it_began_in() {
    let client = ScriptedBackend::new().client();
    let holder = client.clone();
    let thread = std::thread::spawn(move || {
        let runtime = runtime();
        let policy = LockPolicy::background_job().with_max_hold(ms(50));
        runtime
            .block_on(holder.lock(name()).unwrap().acquire(policy))
            .unwrap()
    });
    let _hung = thread.join().unwrap();
    // The guard is not looked at, and the runtime whose timer would have told is gone.
    let next = client
        .lock(name())
        .unwrap()
        .try_acquire(s(20))
        .await
        .unwrap();
    assert!(next.is_some_and(|next| next.is_valid()));
}

/// No task of that runtime runs, and no call looks at the guard.
#[tokio::test]
async fn the_longest_hold_ends_while_all_threads_of_its_runtime_are_blocked() {
    let scripted = ScriptedBackend::new();
    let (holder, other) = (scripted.client(), scripted.client());
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let (tell, holds) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let runtime = runtime();
        runtime.block_on(async {
            let policy = LockPolicy::background_job().with_max_hold(ms(50));
            let guard = holder.acquire(name(), policy).await.unwrap();
            tell.send(()).unwrap();
            blocked.recv().unwrap_err();
            guard.release().await.unwrap_err()
        })
    });
    // It can be over by then.
    holds.await.unwrap();
    let next = other.acquire(name(), s(20)).await.unwrap();
    drop(unblock);
    assert!(thread.join().unwrap().is_lost());
    assert!(next.is_valid());
}

#[tokio::test]
async fn the_longest_hold_ends_in_the_store_after_the_runtime_that_it_began_in() {
    let scripted = ScriptedBackend::new();
    let (holder, other) = (scripted.client(), scripted.client());
    let thread = std::thread::spawn(move || {
        let runtime = runtime();
        let policy = LockPolicy::background_job().with_max_hold(ms(50));
        runtime.block_on(holder.acquire(name(), policy)).unwrap()
    });
    let _hung = thread.join().unwrap();
    let next = other.acquire(name(), s(20)).await.unwrap();
    assert!(next.is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_ends_in_time_is_not_lost_later() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let guard = client
        .lock(name())
        .unwrap()
        .acquire(MAX_HOLD)
        .await
        .unwrap();
    let lost = tokio::spawn(guard.lost());
    sleep(s(9)).await;
    guard.release().await.unwrap();
    let next = take(&client).await;
    sleep(s(60)).await;
    assert!(next.is_valid(), "the bound was of the earlier hold");
    assert!(!lost.is_finished());
    lost.abort();
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_token_fires_when_the_longest_hold_is_over() {
    let client = ScriptedBackend::new().client();
    let guard = client.acquire(name(), MAX_HOLD).await.unwrap();
    let (token, same) = (guard.cancellation_token(), guard.cancellation_token());
    sleep(s(10) - ms(1)).await;
    assert!(!token.is_cancelled());
    let (elapsed, ()) = timed(token.cancelled()).await;
    took(elapsed, ms(1));
    assert!(same.is_cancelled() && guard.cancellation_token().is_cancelled());
    // The same as where another waits: the guard that is kept keeps nothing locked.
    sleep(ms(200)).await;
    assert!(is_free(&client).await);
}

#[tokio::test]
async fn a_cancellation_token_outlives_the_runtime_of_another_that_watches() {
    let store = MemoryBackend::new();
    let client = LockProvider::new(store.clone());
    let guard = take(&client).await;
    let lock = client.lock(name()).unwrap();
    let (watches, begun) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = runtime();
        // Who gets in line has the holder watched, here.
        assert!(runtime.block_on(lock.try_acquire(ms(1))).unwrap().is_none());
        watches.send(()).unwrap();
        ended.recv().unwrap();
    });
    begun.recv().unwrap();
    let token = guard.cancellation_token();
    end.send(()).unwrap();
    thread.join().unwrap();
    store.revoke(guard.name());
    // No call looks at the guard.
    let cancelled = tokio::time::timeout(s(20), token.cancelled()).await;
    assert!(cancelled.is_ok());
}

#[test]
fn a_cancellation_token_of_no_runtime_fires_when_a_loss_is_found() {
    let store = MemoryBackend::new();
    let lock = LockProvider::new(store.clone()).lock(name()).unwrap();
    let mut acquire = lock.acquire_owned(Duration::ZERO);
    let guard = poll_once(&mut acquire).unwrap().unwrap();
    let token = guard.cancellation_token();
    store.revoke(guard.name());
    assert!(!guard.is_valid() && token.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ends_is_seen_before_another_is_granted() {
    let (store, here) = leases();
    let there = LockProvider::new(store);
    let guard = take(&here).await;
    let lost = tokio::spawn(guard.lost());
    let other = start(&there, s(60)).await;
    advance(s(3) - ms(1)).await;
    tokio::task::yield_now().await;
    assert!(guard.is_valid() && !other.is_finished());
    let granted = async {
        let other = other.await.unwrap().unwrap();
        assert!(!guard.is_valid(), "two valid guards");
        other
    };
    let (elapsed, other) = timed(granted).await;
    assert!(elapsed <= ms(10), "{elapsed:?}");
    assert_eq!(lost.await.unwrap(), LossReason::Expired);
    assert!(guard.release().await.unwrap_err().is_lost());
    assert!(other.is_valid() && !is_free(&here).await);
}

#[tokio::test(start_paused = true)]
async fn work_is_stopped_when_its_lease_ends() {
    let (_, client) = leases();
    let guard = take(&client).await;
    let (elapsed, outcome) = timed(guard.protect(sleep(s(60)))).await;
    took(elapsed, s(3));
    let error = outcome.unwrap_err();
    assert!(error.is_lost() && error.lock() == Some(&name()), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_frozen_past_its_lease_sees_it_at_its_first_look() {
    let (_, client) = leases();
    let guard = take(&client).await;
    guard.protect(async {}).await.unwrap();
    // No timer fires: the clock has jumped, as after a freeze.
    advance(s(4)).await;
    assert!(!guard.is_valid());
    assert!(
        guard
            .protect(async { unreachable!("not a step without the lock") })
            .await
            .is_err()
    );
    drop(guard);
    // Frozen in the middle of the last poll: done, and yet lost.
    let guard = take(&client).await;
    let done = guard.protect(async {
        advance(s(4)).await;
    });
    assert!(done.await.unwrap_err().is_lost());
}

#[tokio::test(start_paused = true)]
async fn the_first_reason_of_a_loss_stays() {
    let (store, client) = leases();
    let policy = LockPolicy::background_job().with_max_hold(s(5));
    let guard = client.lock(name()).unwrap().acquire(policy).await.unwrap();
    sleep(s(4)).await;
    assert_eq!(guard.lost().await, LossReason::Expired);
    let text = guard.check().unwrap_err().to_string();
    sleep(s(4)).await;
    assert_eq!(
        guard.lost().await,
        LossReason::Expired,
        "it had been lost before"
    );
    assert_eq!(guard.check().unwrap_err().to_string(), text);
    drop(guard);

    let guard = take(&client).await;
    store.revoke(&name());
    assert_eq!(guard.lost().await, LossReason::Revoked);
    client.shutdown(Duration::ZERO).await;
    assert_eq!(guard.lost().await, LossReason::Revoked);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_revoked_is_another_s_at_once() {
    let store = MemoryBackend::new();
    let (here, there) = (
        LockProvider::new(store.clone()),
        LockProvider::new(store.clone()),
    );
    let guard = take(&here).await;
    let waiting = start(&there, s(60)).await;
    assert!(store.revoke(&name()));
    assert!(!guard.is_valid());
    let (elapsed, next) = timed(waiting).await;
    let next = next.unwrap().unwrap();
    took(elapsed, ms(0));
    drop(guard);
    assert!(next.is_valid() && store.held() == 1);
    next.release().await.unwrap();
    assert!(!store.revoke(&name()), "nobody holds it");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_keeps_what_is_held() {
    let store = MemoryBackend::new();
    let (here, there) = (
        LockProvider::new(store.clone()),
        LockProvider::new(store.clone()),
    );
    let guard = take(&here).await;
    store.set_available(false);
    let error = there
        .lock(name())
        .unwrap()
        .try_acquire(Duration::ZERO)
        .await
        .unwrap_err();
    assert!(
        error.is_unavailable(),
        "whether it is held is not known: {error}"
    );
    assert!(!there.health().await.is_up());
    assert!(guard.is_valid());
    let waiting = start(&there, s(60)).await;
    sleep(s(10)).await;
    store.set_available(true);
    sleep(s(2)).await;
    assert!(there.health().await.is_up() && !waiting.is_finished());
    guard.release().await.unwrap();
    let (elapsed, next) = timed(waiting).await;
    took(elapsed, ms(0));
    assert!(next.unwrap().unwrap().is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_lost_guard_that_is_kept_does_not_block_its_own_process() {
    let (_, client) = leases();
    // It is not looked at: a handler that hangs, without a longest hold.
    let hung = take(&client).await;
    let waiting = start(&client, s(60)).await;
    sleep(s(10)).await;
    assert!(!hung.is_valid());
    assert!(
        waiting.is_finished(),
        "the lock is free, in every other process"
    );
    // Its own lease has ended meanwhile as well.
    assert!(
        waiting
            .await
            .unwrap()
            .unwrap()
            .release()
            .await
            .unwrap_err()
            .is_lost()
    );
    drop(hung);
    assert!(is_free(&client).await);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_here_can_be_had_here_when_its_guard_is_dropped() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let guard = take(&client).await;
    let waiting = start(&client, s(60)).await;
    scripted.lose(&name(), LossReason::Disconnected);
    assert_eq!(guard.lost().await, LossReason::Disconnected);
    drop(guard);
    let (elapsed, next) = timed(waiting).await;
    took(elapsed, ms(0));
    assert!(next.unwrap().unwrap().is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_was_lost_on_its_way_is_not_handed_on() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::DoneThenLate(ms(20))]);
    let first = start(&client, s(60)).await;
    let second = start(&client, s(60)).await;
    sleep(ms(10)).await;
    first.abort();
    scripted.lose(&name(), LossReason::Disconnected);
    let guard = second.await.unwrap().unwrap();
    assert!(guard.is_valid());
    assert_eq!(scripted.tried(&name()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_grant_whose_lease_ended_on_its_way_is_given_back_before_the_next_try() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::DoneThenLate(ms(20))]);
    let first = start(&client, s(60)).await;
    let second = start(&client, s(60)).await;
    sleep(ms(10)).await;
    first.abort();
    scripted.expire(&name());
    let (elapsed, guard) = timed(second).await;
    assert!(guard.unwrap().expect("nobody else holds it").is_valid());
    took(elapsed, ms(10));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_was_lost_on_its_way_is_not_handed_out() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::DoneThenLate(ms(20))]);
    let acquiring = start(&client, s(60)).await;
    sleep(ms(10)).await;
    scripted.lose(&name(), LossReason::Disconnected);
    assert!(acquiring.await.unwrap().unwrap().is_valid());
    assert_eq!(scripted.tried(&name()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_grant_whose_lease_ended_on_its_way_is_given_back_and_asked_for_again() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    for wait in [s(0), s(60)] {
        scripted.tries([Play::DoneThenLate(ms(20))]);
        let acquiring = start(&client, wait).await;
        sleep(ms(10)).await;
        scripted.expire(&name());
        match acquiring.await.unwrap() {
            Ok(guard) => {
                assert!(!wait.is_zero());
                guard.release().await.unwrap();
            }
            Err(error) => assert!(error.is_unavailable() && wait.is_zero(), "{error}"),
        }
        let next = scripted.client().lock(name()).unwrap().acquire(s(1)).await;
        next.unwrap().release().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_the_grants_whose_lease_ended_on_their_way_are_not_handed_out() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::DoneThenLate(ms(20))]);
    let claiming = tokio::spawn({
        let client = client.clone();
        async move { client.claim([name()], 1).await }
    });
    sleep(ms(10)).await;
    scripted.expire(&name());
    assert!(claiming.await.unwrap().unwrap().is_empty());

    scripted.tries([Play::DoneThenLate(ms(20))]);
    let both = [name(), "order:process:43".parse().unwrap()];
    let acquiring = tokio::spawn({
        let both = both.clone();
        async move { client.acquire_all(both, s(60)).await }
    });
    sleep(ms(10)).await;
    scripted.expire(&name());
    let guards = acquiring.await.unwrap().unwrap();
    assert!(guards.is_valid());
}

/// How often a wait for the loss looks at this clock, up to the end of the lease or of the longest hold.
async fn looks_until_lost(clock: impl Clock, lease: Duration, max_hold: Duration) -> usize {
    let clock = Arc::new(Counting::new(clock));
    let client = LockProvider::new(MemoryBackend::with_lease(lease, clock.clone()));
    let policy = LockPolicy::background_job().with_max_hold(max_hold);
    let guard = client.acquire(name(), policy).await.unwrap();
    let before = clock.looks();
    guard.lost().await;
    clock.looks() - before
}

/// Some for each third of the lease, by each of the two that wait: none of them turns without a sleep.
const FEW: usize = 40;

/// Whose end is no whole millisecond.
#[tokio::test(start_paused = true)]
async fn a_wait_for_a_loss_sleeps_until_the_very_end() {
    let us = Duration::from_micros;
    for (lease, max_hold) in [
        (us(3_000_001), s(20)),
        (s(20), us(3_000_001)),
        (us(2_999_999), us(2_999_998)),
    ] {
        let (elapsed, looks) = timed(looks_until_lost(TokioClock::new(), lease, max_hold)).await;
        let end = lease.min(max_hold);
        assert!(elapsed >= end && elapsed < end + ms(2), "{elapsed:?}");
        assert!(looks < FEW, "{looks} looks");
    }
}

#[tokio::test]
async fn a_wait_for_a_loss_sleeps_by_the_clock_of_the_machine() {
    for _ in 0..20 {
        let (lease, max_hold) = (Duration::from_micros(50_001), s(20));
        let looks = looks_until_lost(BootClock, lease, max_hold).await;
        assert!(looks < FEW, "{looks} looks");
    }
}
