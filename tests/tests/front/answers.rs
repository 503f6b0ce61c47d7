//! Deadlines, and which error ends a wait.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use lock_core::LockErrorKind;
use lock_tests::scripted_backend::{Play, ScriptedBackend};

use crate::support::{RESPONSE, SLACK, is_free, ms, name, s, start, take, timed, took};

#[tokio::test(start_paused = true)]
async fn a_silent_backend_ends_an_acquire_as_unavailable_in_time() {
    for wait in [ms(0), ms(1), ms(500), s(2), s(300)] {
        let scripted = ScriptedBackend::new();
        scripted.every_try(Play::Hang);
        let lock = scripted.client().lock(name()).unwrap();
        let (took, result) = timed(lock.acquire(wait)).await;
        let error = result.unwrap_err();
        assert_eq!(
            error.kind(),
            LockErrorKind::Unavailable,
            "{wait:?}: {error}"
        );
        assert!(
            took >= wait && took <= wait + RESPONSE + SLACK,
            "{wait:?} took {took:?}"
        );
        assert_eq!(error.lock(), Some(&name()));
        assert_eq!(scripted.tried(&name()), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_timeout_is_what_the_provider_was_given() {
    let scripted = ScriptedBackend::new();
    scripted.every_try(Play::Hang);
    let lock = scripted.client_with(ms(70)).lock(name()).unwrap();
    let (elapsed, result) = timed(lock.try_acquire(Duration::ZERO)).await;
    took(elapsed, ms(70));
    assert!(result.unwrap_err().is_unavailable());
}

/// Of a server's answer, which comes from another thread, a clock that is paused does not wait.
#[tokio::test(start_paused = true)]
async fn an_answer_that_only_a_paused_clock_calls_late_says_so() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let guard = take(&client).await;
    scripted.every_try(Play::Hang);
    let other = client.lock("order:process:43").unwrap();
    let late = [
        other.acquire(s(1)).await.map(drop),
        client.claim(["order:process:44"], 1).await.map(drop),
        client
            .acquire_all(["order:process:45", "order:process:46"], s(0))
            .await
            .map(drop),
        guard.release().await,
    ];
    for late in late.into_iter().filter_map(Result::err) {
        assert!(late.is_unavailable());
        assert!(late.to_string().contains("start_paused"), "{late}");
    }
    tokio::time::resume();
    let other = scripted
        .client_with(ms(500))
        .lock("order:process:47")
        .unwrap();
    let late = other.acquire(s(0)).await.unwrap_err();
    assert!(late.is_unavailable());
    assert!(!late.to_string().contains("paused"), "{late}");
}

#[tokio::test(start_paused = true)]
async fn an_endless_response_timeout_overflows_nothing() {
    let scripted = ScriptedBackend::new();
    scripted.every_try(Play::Late(ms(20)));
    let client = scripted.client_with(Duration::MAX);
    let guard = take(&client).await;
    let refused = client
        .lock(name())
        .unwrap()
        .try_acquire(ms(10))
        .await
        .unwrap();
    assert!(refused.is_none());
    guard.fencing_token().await.unwrap();
    guard.release().await.unwrap();
    assert_eq!(client.claim([name()], 1).await.unwrap().len(), 1);
    assert!(client.health().await.is_up());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_slow_but_in_time_counts() {
    let scripted = ScriptedBackend::new();
    scripted.every_try(Play::Late(RESPONSE - ms(1)));
    let client = scripted.client();
    let (elapsed, guard) = timed(take(&client)).await;
    took(elapsed, RESPONSE - ms(1));
    let (elapsed, free) = timed(is_free(&client)).await;
    assert!(!free);
    // Held here: the backend need not be asked.
    took(elapsed, ms(0));
    drop(guard);
}

#[tokio::test(start_paused = true)]
async fn a_try_without_a_wait_is_one_question() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let guard = take(&there).await;
    let before = scripted.tried(&name());
    assert!(!is_free(&here).await);
    assert_eq!(scripted.tried(&name()), before + 1);
    drop(guard);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_contended_behind_another_client_that_holds_the_lock() {
    let scripted = ScriptedBackend::new();
    scripted.every_try(Play::Late(ms(30)));
    let (here, there) = (scripted.client(), scripted.client());
    let _guard = take(&there).await;
    for wait in [ms(0), ms(10), ms(100), s(10)] {
        let (elapsed, result) = timed(here.lock(name()).unwrap().acquire(wait)).await;
        assert!(result.unwrap_err().is_contended());
        took(elapsed, wait.max(ms(30)));
    }
}

#[tokio::test(start_paused = true)]
async fn unavailable_is_retried_inside_the_wait() {
    let scripted = ScriptedBackend::new();
    scripted.tries([
        Play::Fail("down"),
        Play::FailLate(ms(10), "starting"),
        Play::Fail("down"),
    ]);
    let lock = scripted.client().lock(name()).unwrap();
    let (elapsed, guard) = timed(lock.acquire(s(5))).await;
    assert!(guard.is_ok() && elapsed < s(5), "{elapsed:?}");
    assert_eq!(scripted.tried(&name()), 4);
}

#[tokio::test(start_paused = true)]
async fn the_last_cause_is_what_the_caller_gets() {
    let scripted = ScriptedBackend::new();
    scripted.tries([Play::Fail("the first cause")]);
    scripted.every_try(Play::Fail("the last cause"));
    let lock = scripted.client().lock(name()).unwrap();
    let (elapsed, result) = timed(lock.acquire(s(3))).await;
    took(elapsed, s(3));
    let error = result.unwrap_err();
    assert!(error.is_unavailable());
    assert!(error.to_string().contains("the last cause"), "{error}");
    assert_eq!(error.waited(), Some(elapsed));
    // Not in a hurry, and not asleep.
    let tried = scripted.tried(&name());
    assert!((4..50).contains(&tried), "{tried} tries");
}

#[tokio::test(start_paused = true)]
async fn without_a_wait_unavailable_is_returned_at_once() {
    let scripted = ScriptedBackend::new();
    scripted.every_try(Play::Fail("down"));
    let lock = scripted.client().lock(name()).unwrap();
    let (elapsed, result) = timed(lock.try_acquire(Duration::ZERO)).await;
    took(elapsed, ms(0));
    let error = result.unwrap_err();
    assert!(
        error.is_unavailable() && error.to_string().contains("down"),
        "{error}"
    );
    assert_eq!(scripted.tried(&name()), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_no_retry_heals_is_not_retried() {
    let scripted = ScriptedBackend::new();
    scripted.every_try(Play::Misconfigured);
    let lock = scripted.client().lock(name()).unwrap();
    let (elapsed, result) = timed(lock.acquire(s(5))).await;
    took(elapsed, ms(0));
    assert_eq!(result.unwrap_err().kind(), LockErrorKind::Misconfigured);
    assert_eq!(scripted.tried(&name()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_down_while_the_lock_is_awaited_is_unavailable_and_not_contended() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let guard = take(&there).await;
    let waiting = start(&here, s(5)).await;
    tokio::time::sleep(ms(100)).await;
    scripted.every_try(Play::Fail("down"));
    drop(guard);
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.is_unavailable(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_error_does_not_hide_a_lock_that_becomes_free() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let guard = take(&there).await;
    let waiting = start(&here, s(60)).await;
    scripted.tries([Play::Fail("once"), Play::FailLate(ms(5), "twice")]);
    drop(guard);
    let (elapsed, guard) = timed(waiting).await;
    drop(guard.unwrap().unwrap());
    assert!(elapsed < s(1), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_tells_no_changes_is_asked_again_when_it_says() {
    let scripted = ScriptedBackend::new();
    scripted.fall_silent(ms(50));
    let (here, there) = (scripted.client(), scripted.client());
    let guard = take(&there).await;
    let waiting = start(&here, s(60)).await;
    tokio::time::sleep(ms(975)).await;
    assert!(!waiting.is_finished());
    guard.release().await.unwrap();
    let (elapsed, guard) = timed(waiting).await;
    drop(guard.unwrap().unwrap());
    assert!(elapsed <= ms(50), "{elapsed:?}");
    // One question in 50 ms, after two to begin with and one for the holder.
    assert!(
        scripted.tried(&name()) <= 1 + 2 + 20,
        "{} tries",
        scripted.tried(&name())
    );
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_panics_does_not_block_the_name() {
    let scripted = ScriptedBackend::new();
    scripted.tries([Play::Panic]);
    let client = scripted.client();
    let lock = client.lock(name()).unwrap();
    let failed = tokio::spawn(async move { lock.acquire(s(5)).await.map(drop) }).await;
    assert!(failed.unwrap_err().is_panic());
    assert!(is_free(&client).await);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_not_answered_ends_and_goes_on() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.every_release(Play::Hang);
    let guard = take(&client).await;
    let (elapsed, result) = timed(guard.release()).await;
    took(elapsed, RESPONSE);
    let error = result.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(error.lock(), Some(&name()));
    // It is not known to be free, and is not: the next in line asks the backend.
    assert!(!is_free(&client).await);
    let waiting = start(&client, s(60)).await;
    scripted.every_release(Play::Answer);
    scripted.let_go();
    let (elapsed, guard) = timed(waiting).await;
    drop(guard.unwrap().unwrap());
    took(elapsed, ms(0));
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_caller_leaves_goes_on() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.every_release(Play::Late(ms(50)));
    for polls in 0..2 {
        let guard = take(&client).await;
        let left = lock_tests::abandon(guard.release(), polls).await;
        assert!(left.is_none());
        assert_eq!(scripted.held(), 1);
        tokio::time::sleep(ms(51)).await;
        assert_eq!(scripted.held(), 0, "after {polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_says_why() {
    let scripted = ScriptedBackend::new();
    scripted.every_release(Play::Fail("the connection broke"));
    let client = scripted.client();
    let error = take(&client).await.release().await.unwrap_err();
    assert!(
        error.is_unavailable() && error.to_string().contains("connection broke"),
        "{error}"
    );
    // What was done under the lock was done: only a loss takes the result back.
    scripted.lose(&name(), lock_core::LossReason::Disconnected);
    let lock = client.lock(name()).unwrap();
    assert_eq!(lock.run(Duration::ZERO, async { 7 }).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_answered_is_unavailable_in_time() {
    let scripted = ScriptedBackend::new();
    scripted.every_token(Play::Hang);
    let guard = take(&scripted.client()).await;
    let answer = tokio::time::timeout(s(60), timed(guard.fencing_token())).await;
    let (elapsed, result) = answer.expect("the caller does not wait for ever");
    took(elapsed, RESPONSE);
    assert!(result.unwrap_err().is_unavailable());
    assert!(guard.is_valid());
    // The next question can be answered.
    scripted.every_token(Play::Answer);
    guard.fencing_token().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_failed_can_be_asked_for_again() {
    let scripted = ScriptedBackend::new();
    scripted.every_token(Play::Fail("down"));
    let guard = take(&scripted.client()).await;
    let error = guard.fencing_token().await.unwrap_err();
    assert!(
        error.is_unavailable() && error.lock() == Some(&name()),
        "{error}"
    );
    scripted.every_token(Play::Answer);
    let token = guard.fencing_token().await.unwrap();
    assert_eq!(guard.fencing_token().await.unwrap(), token);
}

#[tokio::test(start_paused = true)]
async fn each_of_many_callers_waits_for_a_token_no_longer_than_one() {
    let scripted = ScriptedBackend::new();
    scripted.every_token(Play::Hang);
    let guard = Arc::new(take(&scripted.client()).await);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let guard = Arc::clone(&guard);
        asking.spawn(async move { timed(guard.fencing_token()).await });
    }
    for (elapsed, token) in asking.join_all().await {
        took(elapsed, RESPONSE);
        assert!(token.unwrap_err().is_unavailable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_comes_after_the_loss_is_not_handed_out() {
    let scripted = ScriptedBackend::new();
    scripted.every_token(Play::Late(ms(50)));
    let guard = take(&scripted.client()).await;
    let (token, ()) = tokio::join!(guard.fencing_token(), async {
        tokio::time::sleep(ms(20)).await;
        scripted.lose(&name(), lock_core::LossReason::Disconnected);
    });
    assert!(token.unwrap_err().is_lost());
}

/// As after a process stood still: the server has given the lock to another, and does not answer.
#[tokio::test(start_paused = true)]
async fn a_token_is_not_waited_for_beyond_the_loss() {
    let scripted = ScriptedBackend::new();
    scripted.every_token(Play::Hang);
    let guard = take(&scripted.client()).await;
    let asking = timed(guard.fencing_token());
    let ((elapsed, token), ()) = tokio::join!(asking, async {
        tokio::time::sleep(ms(20)).await;
        scripted.lose(&name(), lock_core::LossReason::Disconnected);
    });
    took(elapsed, ms(20));
    assert!(token.unwrap_err().is_lost());
}

#[tokio::test(start_paused = true)]
async fn the_health_of_a_silent_backend_is_known_in_time() {
    let scripted = ScriptedBackend::new();
    scripted.every_health(Play::Hang);
    let (elapsed, health) = timed(async { scripted.client().health().await }).await;
    took(elapsed, RESPONSE);
    assert!(!health.is_up());
    assert!(health.error().unwrap().is_unavailable());

    scripted.every_health(Play::FailLate(ms(5), "down"));
    let health = scripted.client().health().await;
    let error = health.error().unwrap();
    assert!(
        error.to_string().contains("down") && error.source().is_none(),
        "{error}"
    );
}
