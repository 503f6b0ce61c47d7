//! The line of one name in one process: one question at a time, and what those behind it get.

use lock_tests::scripted_backend::{Play, ScriptedBackend};
use tokio::time::sleep;

use crate::support::{RESPONSE, is_free, ms, name, s, start, take, timed, took};

#[tokio::test(start_paused = true)]
async fn a_thousand_waiters_are_one_for_the_backend() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let guard = take(&there).await;
    let before = scripted.tried(&name());
    let mut waiting = Vec::new();
    for _ in 0..1_000 {
        waiting.push(start(&here, s(60)).await);
    }
    sleep(s(1)).await;
    assert!(
        scripted.tried(&name()) <= before + 2,
        "one in line asks, and registers once"
    );
    guard.release().await.unwrap();
    for waiting in waiting {
        waiting.await.unwrap().unwrap().release().await.unwrap();
    }
    assert_eq!(scripted.most_under_way(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_behind_a_local_guard_ends_contended_at_its_time() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let _guard = take(&client).await;
    let before = scripted.tried(&name());
    // Whatever is the matter with the backend: it is not asked.
    scripted.every_try(Play::Hang);
    for wait in [ms(0), ms(1), ms(700), s(9)] {
        let (elapsed, result) = timed(client.lock(name()).unwrap().acquire(wait)).await;
        took(elapsed, wait);
        assert!(result.unwrap_err().is_contended());
    }
    assert_eq!(scripted.tried(&name()), before);
}

#[tokio::test(start_paused = true)]
async fn a_wait_behind_an_unanswered_question_ends_unavailable() {
    let scripted = ScriptedBackend::new();
    scripted.every_try(Play::Hang);
    let client = scripted.client();
    let first = start(&client, s(60)).await;
    for wait in [ms(0), ms(300), s(3)] {
        let (elapsed, result) = timed(client.lock(name()).unwrap().acquire(wait)).await;
        took(elapsed, wait + RESPONSE);
        assert!(
            result.unwrap_err().is_unavailable(),
            "whether it is held is not known"
        );
    }
    first.abort();
}

#[tokio::test(start_paused = true)]
async fn a_try_without_a_wait_behind_a_question_takes_its_answer() {
    for held in [true, false] {
        let scripted = ScriptedBackend::new();
        let (here, there) = (scripted.client(), scripted.client());
        let guard = if held { Some(take(&there).await) } else { None };
        scripted.tries([Play::Late(ms(40))]);
        let first = start(&here, s(60)).await;
        sleep(ms(10)).await;
        // Held by another process, or by the first in line: either way it is held.
        let (elapsed, free) = timed(is_free(&here)).await;
        took(elapsed, ms(30));
        assert!(!free);
        assert_eq!(first.is_finished(), !held);
        first.abort();
        drop(guard);
    }
}

#[tokio::test(start_paused = true)]
async fn a_try_without_a_wait_behind_one_who_leaves_is_given_the_lock() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::DoneThenLate(ms(40))]);
    let first = start(&client, s(60)).await;
    let lock = client.lock(name()).unwrap();
    let second = tokio::spawn(async move { timed(lock.try_acquire(ms(0))).await });
    sleep(ms(10)).await;
    first.abort();
    let (elapsed, guard) = second.await.unwrap();
    took(elapsed, ms(40));
    assert!(guard.unwrap().expect("nobody else wants it").is_valid());
    assert_eq!(
        scripted.tried(&name()),
        1,
        "the grant was handed on, not asked for again"
    );
}

#[tokio::test(start_paused = true)]
async fn tries_without_a_wait_behind_a_retrying_one_end_in_time() {
    let scripted = ScriptedBackend::new();
    scripted.every_try(Play::Fail("down"));
    let client = scripted.client();
    let retrying = start(&client, s(60)).await;
    sleep(s(5)).await;
    let (elapsed, result) = timed(client.lock(name()).unwrap().try_acquire(ms(0))).await;
    assert!(result.unwrap_err().is_unavailable());
    assert!(elapsed <= RESPONSE + ms(100), "{elapsed:?}");
    retrying.abort();
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_runs_out_of_time_leaves_and_the_next_asks_on() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let guard = take(&there).await;
    let short = start(&here, ms(100)).await;
    let long = start(&here, s(60)).await;
    let (elapsed, result) = timed(short).await;
    took(elapsed, ms(100));
    assert!(result.unwrap().unwrap_err().is_contended());
    sleep(ms(100)).await;
    guard.release().await.unwrap();
    let (elapsed, guard) = timed(long).await;
    took(elapsed, ms(0));
    drop(guard.unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_order_of_the_calls_is_kept_while_some_leave() {
    let scripted = ScriptedBackend::new();
    scripted.every_try(Play::Late(ms(3)));
    let client = scripted.client();
    let guard = take(&client).await;
    let mut waiting = Vec::new();
    for number in 0..60_u64 {
        // Every third gives up before its turn.
        let wait = if number % 3 == 0 { ms(50) } else { s(600) };
        waiting.push((number, start(&client, wait).await));
    }
    sleep(ms(100)).await;
    guard.release().await.unwrap();
    for (number, waiting) in waiting {
        let (elapsed, result) = timed(waiting).await;
        if number % 3 == 0 {
            assert!(result.unwrap().unwrap_err().is_contended());
        } else {
            // The one before has just released: no other came in between.
            took(elapsed, ms(3));
            result.unwrap().unwrap().release().await.unwrap();
        }
    }
    assert_eq!(scripted.most_under_way(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_costs_one_question() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let _guard = take(&there).await;
    let waiting = start(&here, s(60)).await;
    sleep(ms(10)).await;
    let before = scripted.tried(&name());
    for _ in 0..10 {
        // It was free for a moment, in which another was faster.
        scripted.rumour();
        sleep(ms(10)).await;
    }
    assert!(!waiting.is_finished());
    waiting.abort();
    let tried = scripted.tried(&name()) - before;
    assert!(
        (10..=11).contains(&tried),
        "{tried} questions for 10 wake-ups"
    );
}
