//! The end of a provider, with all that can be going on.

use std::future::pending;
use std::time::Duration;

use lock_core::{LockErrorKind, LockName, LockPolicy, LossReason, Shutdown};
use lock_tests::scripted_backend::{Play, ScriptedBackend};
use tokio::time::sleep;

use crate::support::{RESPONSE, is_free, ms, name, s, start, take, timed, took};

#[tokio::test(start_paused = true)]
async fn nobody_is_let_in_after_a_shutdown() {
    let scripted = ScriptedBackend::new();
    let (client, other) = (scripted.client(), scripted.client());
    let clone = client.clone();
    let lock = client.lock(name()).unwrap();
    let (elapsed, _) = timed(client.shutdown(s(10))).await;
    took(elapsed, ms(0));
    let before = scripted.tried(&name());
    for wait in [Duration::ZERO, s(5)] {
        let (elapsed, result) = timed(lock.acquire(wait)).await;
        took(elapsed, ms(0));
        let error = result.unwrap_err();
        assert!(
            error.is_closed() && error.lock() == Some(&name()),
            "{error}"
        );
    }
    assert!(
        lock.try_acquire(Duration::ZERO)
            .await
            .unwrap_err()
            .is_closed()
    );
    assert!(
        lock.run(Duration::ZERO, async {})
            .await
            .unwrap_err()
            .is_closed()
    );
    assert!(clone.claim([name()], 1).await.unwrap_err().is_closed());
    let all = clone
        .acquire_all([name()], LockPolicy::user_request())
        .await;
    assert_eq!(all.unwrap_err().kind(), LockErrorKind::Closed);
    assert_eq!(scripted.tried(&name()), before);
    // It was this provider that ended, not the locks.
    assert!(is_free(&other).await);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_sent_away_at_once() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let local: LockName = "a:b:c".parse().unwrap();
    let own = here
        .lock(&local)
        .unwrap()
        .acquire(Duration::ZERO)
        .await
        .unwrap();
    let _elsewhere = take(&there).await;
    let behind_another_client = start(&here, s(60)).await;
    let behind_a_waiter = start(&here, s(60)).await;
    let lock = here.lock(&local).unwrap();
    let behind_own = tokio::spawn(async move { lock.acquire(s(60)).await });
    sleep(ms(10)).await;
    let shutdown = tokio::spawn(async move { here.shutdown(s(10)).await });
    for waiting in [behind_another_client, behind_a_waiter, behind_own] {
        let (elapsed, result) = timed(waiting).await;
        took(elapsed, ms(0));
        let error = result.unwrap().unwrap_err();
        assert!(error.is_closed(), "{error}");
    }
    assert!(!shutdown.is_finished(), "a lock is held");
    assert!(own.is_valid(), "and it has its grace");
    own.release().await.unwrap();
    let (elapsed, _) = timed(async { shutdown.await.unwrap() }).await;
    took(elapsed, ms(0));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_the_grace_when_only_waiters_were_there() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let _elsewhere = take(&there).await;
    let waiting = [start(&here, s(60)).await, start(&here, s(60)).await];
    sleep(ms(10)).await;
    let (elapsed, _) = timed(here.shutdown(s(10))).await;
    took(elapsed, ms(0));
    for waiting in waiting {
        assert!(waiting.await.unwrap().unwrap_err().is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_retries_a_backend_that_is_down_is_sent_away() {
    let scripted = ScriptedBackend::new();
    scripted.every_try(Play::Fail("down"));
    let client = scripted.client();
    let retrying = start(&client, s(60)).await;
    sleep(s(5)).await;
    let (elapsed, _) = timed(client.shutdown(s(10))).await;
    took(elapsed, ms(0));
    assert!(retrying.await.unwrap().unwrap_err().is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_when_the_last_guard_does() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let guard = take(&client).await;
    let shutdown = {
        let client = client.clone();
        tokio::spawn(async move { timed(client.shutdown(s(10))).await.0 })
    };
    sleep(s(3)).await;
    assert!(guard.is_valid() && !shutdown.is_finished());
    drop(guard);
    took(shutdown.await.unwrap(), s(3));
    assert_eq!(scripted.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_after_the_grace_is_declared_lost_and_unlocked() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let guard = take(&here).await;
    let working: LockName = "a:b:c".parse().unwrap();
    let lock = here.lock(&working).unwrap();
    let work = tokio::spawn(async move { lock.run(Duration::ZERO, pending::<()>()).await });
    tokio::task::yield_now().await;
    let (elapsed, _) = timed(here.shutdown(s(10))).await;
    assert!(
        elapsed >= s(10) && elapsed <= s(10) + ms(300),
        "{elapsed:?}"
    );
    assert!(!guard.is_valid());
    assert_eq!(guard.lost().await, LossReason::Shutdown);
    assert!(work.is_finished(), "its work was stopped");
    assert!(work.await.unwrap().unwrap_err().is_lost());
    assert_eq!(scripted.held(), 0);
    let next = take(&there).await;
    assert!(guard.release().await.unwrap_err().is_lost());
    assert!(next.is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_counts_what_was_released_and_what_was_not() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let take = async |text: &str| client.acquire(text, Duration::ZERO).await.unwrap();
    let [dropped, released, kept, late] = [
        take("a:b:1").await,
        take("a:b:2").await,
        take("a:b:3").await,
        take("a:b:4").await,
    ];
    let expired = LockPolicy::background_job().with_max_hold(s(2));
    let expired = client.acquire("a:b:5", expired).await.unwrap();
    drop(take("a:b:6").await);
    let leader = client.leader("job:lead").unwrap();
    while !leader.is_leader() {
        tokio::task::yield_now().await;
    }
    let shutdown = tokio::spawn({
        let client = client.clone();
        async move { client.shutdown(s(10)).await }
    });
    sleep(s(1)).await;
    drop(dropped);
    released.release().await.unwrap();
    sleep(s(9) - ms(5)).await;
    // The answer comes after the end of the grace. The lock is not lost by that.
    scripted.every_release(Play::Late(ms(50)));
    late.release().await.unwrap();
    let ended = shutdown.await.unwrap();
    // The leader resigned.
    assert_eq!((ended.released, ended.forfeited), (4, 1), "{ended:?}");
    assert_eq!(kept.lost().await, LossReason::Shutdown);
    assert_eq!(expired.lost().await, LossReason::MaxHold);
    assert_eq!(client.shutdown(s(10)).await, Shutdown::default());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_returns_when_the_locks_are_unlocked_and_not_before() {
    let scripted = ScriptedBackend::new();
    scripted.every_release(Play::Late(ms(70)));
    let client = scripted.client();
    let _kept = take(&client).await;
    client.shutdown(s(1)).await;
    assert_eq!(
        scripted.held(),
        0,
        "the process can end now, and the release would not be sent"
    );

    // The same for one that was dropped just before.
    let client = scripted.client();
    drop(take(&client).await);
    client.shutdown(s(1)).await;
    assert_eq!(scripted.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_goes_back_because_nobody_wants_it() {
    let scripted = ScriptedBackend::new();
    scripted.every_release(Play::Late(ms(70)));
    scripted.tries([Play::DoneThenLate(s(1))]);
    let client = scripted.client();
    let acquiring = start(&client, s(60)).await;
    acquiring.abort();
    tokio::task::yield_now().await;
    client.shutdown(s(10)).await;
    assert_eq!(scripted.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_of_a_silent_backend_ends() {
    let scripted = ScriptedBackend::new();
    scripted.every_release(Play::Hang);
    let client = scripted.client();
    let _kept = take(&client).await;
    let shutdown = tokio::time::timeout(s(60), timed(client.shutdown(s(1)))).await;
    let (elapsed, _) = shutdown.expect("it does not wait for ever");
    assert!(elapsed <= s(1) + RESPONSE + ms(300), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_granted_after_a_shutdown_goes_back() {
    for play in [
        Play::DoneThenLate(s(1)),
        Play::Late(s(1)),
        Play::DoneThenLate(s(4)),
    ] {
        for grace in [Duration::ZERO, ms(500), s(3)] {
            let scripted = ScriptedBackend::new();
            let client = scripted.client();
            scripted.tries([play]);
            let first = start(&client, s(60)).await;
            let behind = start(&client, s(60)).await;
            sleep(ms(10)).await;
            client.shutdown(grace).await;
            for acquiring in [first, behind] {
                match acquiring.await.unwrap() {
                    Ok(guard) => assert!(
                        !guard.is_valid(),
                        "let in at a shutdown: {play:?} {grace:?}"
                    ),
                    Err(error) => assert!(error.is_closed(), "{error}"),
                }
            }
            sleep(s(10)).await;
            assert_eq!(scripted.held(), 0, "{play:?} {grace:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_with_a_question_that_is_answered_in_its_grace_ends_then() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::DoneThenLate(s(1))]);
    let acquiring = start(&client, s(60)).await;
    acquiring.abort();
    tokio::task::yield_now().await;
    let (elapsed, _) = timed(client.shutdown(s(10))).await;
    took(elapsed, s(1));
    assert_eq!(scripted.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn two_shutdowns_end_together() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let guard = take(&client).await;
    let wait = |grace| {
        let client = client.clone();
        tokio::spawn(async move { timed(client.shutdown(grace)).await.0 })
    };
    let (first, second) = (wait(s(10)), wait(Duration::MAX));
    sleep(s(2)).await;
    guard.release().await.unwrap();
    took(first.await.unwrap(), s(2));
    took(second.await.unwrap(), s(2));
}
