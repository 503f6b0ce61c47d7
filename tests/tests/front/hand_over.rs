//! A lock that is released goes to the next in line of its provider, without the store, for a while.

use std::time::Duration;

use lock_core::{LockPolicy, LockProvider, LossReason};
use lock_tests::scripted_backend::{Play, ScriptedBackend};
use tokio::time::sleep;

use crate::support::{is_free, ms, name, poll_once, runtime, s, start, take, timed, took};

/// A scripted backend whose grants can serve one holder after the other.
fn scripted() -> ScriptedBackend {
    let scripted = ScriptedBackend::new();
    scripted.hand_over();
    scripted
}

/// A client that hands over for so long.
fn client(scripted: &ScriptedBackend, limit: Duration) -> LockProvider {
    LockProvider::builder(scripted.backend())
        .local_handover(limit)
        .build()
}

#[tokio::test(start_paused = true)]
async fn a_release_gives_the_lock_to_the_next_in_line_without_the_store() {
    let scripted = scripted();
    scripted.every_release(Play::Late(ms(100)));
    let client = scripted.client();
    let mut guard = take(&client).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(start(&client, s(60)).await);
    }
    let mut token = guard.fencing_token().await.unwrap();
    for waiting in waiting {
        let (elapsed, released) = timed(guard.release()).await;
        released.unwrap();
        took(elapsed, ms(0));
        guard = waiting.await.unwrap().unwrap();
        let next = guard.fencing_token().await.unwrap();
        assert!(guard.is_valid() && next > token);
        token = next;
    }
    assert_eq!((scripted.tried(&name()), scripted.held()), (1, 1));
    let (elapsed, released) = timed(guard.release()).await;
    released.unwrap();
    assert!(elapsed >= ms(100), "nobody is next: the store is told");
    assert_eq!(scripted.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_first_release_after_the_limit_goes_to_the_store() {
    for (limit, tries) in [(ms(0), 21), (ms(10), 6), (s(600), 1)] {
        let scripted = scripted();
        let client = client(&scripted, limit);
        let mut guard = take(&client).await;
        let mut waiting = Vec::new();
        for _ in 0..20 {
            waiting.push(start(&client, s(60)).await);
        }
        for waiting in waiting {
            // Of 3 ms each: the fourth holder is the last one within 10 ms.
            sleep(ms(3)).await;
            guard.release().await.unwrap();
            guard = waiting.await.unwrap().unwrap();
        }
        assert_eq!(scripted.tried(&name()), tries, "{limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_was_held_for_long_is_not_handed_over() {
    let scripted = scripted();
    let client = scripted.client();
    let guard = take(&client).await;
    let next = start(&client, s(60)).await;
    sleep(s(1)).await;
    guard.release().await.unwrap();
    drop(next.await.unwrap().unwrap());
    assert_eq!(scripted.tried(&name()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_was_handed_to_a_task_which_sleeps_is_released_at_the_limit() {
    let scripted = scripted();
    let (here, there) = (scripted.client(), scripted.client());
    let guard = take(&here).await;
    let mut asleep = here.lock(name()).unwrap().acquire_owned(s(60));
    assert!(poll_once(&mut asleep).is_none());
    let of_there = start(&there, s(60)).await;
    sleep(ms(4)).await;
    drop(guard);
    let (elapsed, guard) = timed(of_there).await;
    assert!(elapsed <= ms(7), "{elapsed:?}");
    guard.unwrap().unwrap().release().await.unwrap();
    // It has the turn of its client, and asks.
    let (elapsed, guard) = timed(asleep).await;
    took(elapsed, ms(0));
    assert!(guard.unwrap().is_valid());
}

/// Its task is there and does not run: a branch of a loop that does something else.
#[tokio::test(start_paused = true)]
async fn a_grant_that_nobody_awaits_lies_no_longer_than_a_second_for_a_task_that_sleeps() {
    for is_taken in [false, true] {
        let scripted = scripted();
        scripted.tries([Play::DoneThenLate(ms(20))]);
        let (here, there) = (scripted.client(), scripted.client());
        let mut leaves = here.lock(name()).unwrap().acquire_owned(s(60));
        assert!(poll_once(&mut leaves).is_none());
        let mut asleep = here.lock(name()).unwrap().acquire_owned(s(60));
        assert!(poll_once(&mut asleep).is_none());
        drop(leaves);
        let of_there = start(&there, s(60)).await;
        sleep(ms(500)).await;
        assert_eq!(scripted.held(), 1);
        if is_taken {
            // What was taken is its own for as long as it likes.
            let guard = asleep.await.unwrap();
            sleep(s(5)).await;
            assert!(guard.is_valid() && !of_there.is_finished());
            continue;
        }
        let (elapsed, guard) = timed(of_there).await;
        assert!(elapsed <= ms(530), "{elapsed:?}");
        guard.unwrap().unwrap().release().await.unwrap();
        assert!(asleep.await.unwrap().is_valid());
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_is_called_and_leaves_passes_the_grant_on_or_it_is_released() {
    for has_next in [true, false] {
        let scripted = scripted();
        let client = scripted.client();
        let guard = take(&client).await;
        let mut leaves = client.lock(name()).unwrap().acquire_owned(s(60));
        assert!(poll_once(&mut leaves).is_none());
        let next = if has_next {
            Some(start(&client, s(60)).await)
        } else {
            None
        };
        guard.release().await.unwrap();
        drop(leaves);
        if let Some(next) = next {
            assert!(next.await.unwrap().unwrap().is_valid());
            assert_eq!(scripted.tried(&name()), 1);
        }
        sleep(ms(1)).await;
        assert_eq!(scripted.held(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_hold_is_not_handed_over() {
    let scripted = scripted();
    let client = scripted.client();
    let guard = take(&client).await;
    let next = start(&client, s(60)).await;
    scripted.lose(&name(), LossReason::Revoked);
    assert!(guard.release().await.unwrap_err().is_lost());
    let next = next.await.unwrap().unwrap();
    assert!(next.is_valid());
    assert_eq!(scripted.tried(&name()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ends_on_its_way_to_the_next_is_asked_for_again() {
    let scripted = scripted();
    let client = scripted.client();
    let guard = take(&client).await;
    let mut next = client.lock(name()).unwrap().acquire_owned(s(60));
    assert!(poll_once(&mut next).is_none());
    guard.release().await.unwrap();
    scripted.lose(&name(), LossReason::Disconnected);
    let next = next.await.unwrap();
    assert!(next.is_valid());
    assert_eq!(scripted.tried(&name()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_ends_by_its_own_limit_is_not_handed_over() {
    let scripted = scripted();
    let client = client(&scripted, s(600));
    let guard = take(&client).await;
    let policy = LockPolicy::from(s(60)).with_max_hold(ms(500));
    let second = start(&client, policy).await;
    let third = start(&client, policy).await;
    sleep(ms(400)).await;
    guard.release().await.unwrap();
    let second = second.await.unwrap().unwrap();
    assert_eq!(scripted.tried(&name()), 1);
    let (elapsed, reason) = timed(second.lost()).await;
    took(elapsed, ms(500));
    assert_eq!(reason, LossReason::MaxHold);
    assert!(third.await.unwrap().unwrap().is_valid());
    assert_eq!(scripted.tried(&name()), 2, "it was released before");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_takes_the_lock_from_one_who_was_just_called() {
    let scripted = scripted();
    let (here, there) = (scripted.client(), scripted.client());
    let guard = take(&here).await;
    let called = start(&here, s(60)).await;
    let waits = start(&here, s(60)).await;
    drop(guard);
    here.shutdown(s(10)).await;
    for sent_away in [called, waits] {
        assert!(sent_away.await.unwrap().unwrap_err().is_closed());
    }
    assert!(is_free(&there).await);
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_is_dropped_outside_of_a_runtime_is_released() {
    let scripted = scripted();
    let client = scripted.client();
    let guard = take(&client).await;
    let next = start(&client, s(60)).await;
    // No runtime could take it back in time from one who sleeps.
    std::thread::spawn(move || drop(guard)).join().unwrap();
    assert!(next.await.unwrap().unwrap().is_valid());
    assert_eq!(scripted.tried(&name()), 2);
}

#[tokio::test]
async fn what_was_handed_over_in_a_runtime_that_ends_is_released() {
    let scripted = scripted();
    let (here, there) = (client(&scripted, s(600)), scripted.client());
    let guard = take(&here).await;
    let mut asleep = here.lock(name()).unwrap().acquire_owned(s(60));
    assert!(poll_once(&mut asleep).is_none());
    std::thread::spawn(move || {
        runtime().block_on(async { drop(guard) });
    })
    .join()
    .unwrap();
    assert!(is_free(&there).await);
    assert!(asleep.await.unwrap().is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_try_without_a_wait_is_refused_amid_hand_overs() {
    let scripted = scripted();
    let client = scripted.client();
    let guard = take(&client).await;
    let next = start(&client, s(60)).await;
    drop(guard);
    // Called, and not there yet.
    let lock = client.lock(name()).unwrap();
    let (elapsed, refused) = timed(lock.try_acquire(Duration::ZERO)).await;
    took(elapsed, ms(0));
    assert!(refused.unwrap().is_none());
    let guard = next.await.unwrap().unwrap();
    assert!(lock.try_acquire(Duration::ZERO).await.unwrap().is_none());
    guard.release().await.unwrap();
    assert_eq!(scripted.tried(&name()), 1);
}

#[tokio::test(start_paused = true)]
async fn claims_and_several_locks_together_are_handed_over_as_well() {
    let scripted = scripted();
    let client = scripted.client();
    let claimed = client.claim([name()], 1).await.unwrap();
    let next = start(&client, s(60)).await;
    drop(claimed);
    let guard = next.await.unwrap().unwrap();
    let (names, policy) = (
        [name(), "a:b:c".parse().unwrap()],
        LockPolicy::user_request(),
    );
    let all = client.clone();
    let all = tokio::spawn(async move { all.acquire_all(names, policy).await });
    sleep(ms(1)).await;
    guard.release().await.unwrap();
    let guards = all.await.unwrap().unwrap();
    assert!(guards.is_valid());
    assert_eq!(scripted.tried(&name()), 1);
    guards.release().await.unwrap();
    assert_eq!(scripted.held(), 0);
}
