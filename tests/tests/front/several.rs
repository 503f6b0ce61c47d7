//! Several locks together over a backend that is slow or fails in the middle.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lock_core::backend::{Attempt, Backend, LockRequest};
use lock_core::memory::MemoryBackend;
use lock_core::{LockError, LockErrorKind, LockName, LockPolicy, LockProvider};
use lock_tests::scripted_backend::{Play, ScriptedBackend};
use tokio::time::sleep;

use crate::support::{RESPONSE, SLACK, is_free, ms, name, s, start, take, timed, took};

/// In the order of locking; the one that others hold is in the middle.
fn names() -> [LockName; 3] {
    ["account:transfer:1", "order:process:42", "user:login:9"].map(|name| name.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_error_on_the_way_releases_what_was_acquired() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::Answer]);
    scripted.every_try(Play::Misconfigured);
    let error = client.acquire_all(names(), s(5)).await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Misconfigured);
    assert_eq!(error.lock(), Some(&names()[1]));
    tokio::task::yield_now().await;
    assert_eq!(scripted.held(), 0);
    scripted.behave();
    assert!(client.acquire_all(names(), Duration::ZERO).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_for_all_together() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let mut elsewhere = there
        .acquire_all(names(), Duration::ZERO)
        .await
        .unwrap()
        .into_iter();
    let (first, second) = (elsewhere.next(), elsewhere.next());
    tokio::spawn(async move {
        sleep(s(2)).await;
        drop(first);
        sleep(s(2)).await;
        drop(second);
    });
    let (elapsed, result) = timed(here.acquire_all(names(), s(5))).await;
    took(elapsed, s(5));
    let error = result.unwrap_err();
    assert!(
        error.is_contended() && error.lock() == Some(&names()[2]),
        "{error}"
    );
    assert_eq!(error.waited(), Some(elapsed));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_behind_the_one_that_is_waited_for() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let [first, second, third] = names();
    let guard = there.lock(&second).unwrap().acquire(s(0)).await.unwrap();
    let all = tokio::spawn({
        let here = here.clone();
        async move { here.acquire_all(names(), s(60)).await }
    });
    sleep(s(1)).await;
    // The third was granted beside the question for the second, and given back.
    assert_eq!(scripted.tried(&third), 1);
    let next = there.lock(&third).unwrap().acquire(s(0)).await.unwrap();
    assert!(there.lock(&first).unwrap().acquire(s(0)).await.is_err());
    drop(guard);
    sleep(s(1)).await;
    assert!(!all.is_finished());
    drop(next);
    assert_eq!(all.await.unwrap().unwrap().len(), 3);
    sleep(ms(1)).await;
    assert_eq!(scripted.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_in_line_for_one_of_many_is_not_overtaken() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let [.., third] = names();
    let guard = there.lock(&third).unwrap().acquire(s(0)).await.unwrap();
    let lock = here.lock(&third).unwrap();
    let in_line = tokio::spawn(async move { lock.acquire(s(60)).await });
    sleep(s(1)).await;
    let mut all = tokio::spawn({
        let here = here.clone();
        async move { here.acquire_all(names(), s(60)).await }
    });
    sleep(s(1)).await;
    drop(guard);
    let before = in_line.await.unwrap().unwrap();
    assert!(tokio::time::timeout(s(1), &mut all).await.is_err());
    drop(before);
    assert_eq!(all.await.unwrap().unwrap().len(), 3);
}

/// As the macro does after the body, or after a loss of one.
#[tokio::test(start_paused = true)]
async fn a_function_of_several_locks_waits_for_their_releases_together() {
    for body in [Ok(7), Err(LockError::lost("one of them"))] {
        let scripted = ScriptedBackend::new();
        scripted.every_release(Play::Late(ms(500)));
        let guards = scripted.client().acquire_all(names(), s(5)).await.unwrap();
        let is_lost = body.is_err();
        let (elapsed, value) = timed(lock_core::__private::finish(guards, Ok(body))).await;
        took(elapsed, ms(500));
        assert_eq!((value.is_err(), scripted.held()), (is_lost, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn releases_of_many_are_under_way_together() {
    let scripted = ScriptedBackend::new();
    let names = (0..1_000).map(|number| LockName::new("a", "b", number).unwrap());
    let guards = scripted.client().acquire_all(names, s(5)).await.unwrap();
    scripted.every_release(Play::Late(ms(50)));
    let (elapsed, released) = timed(guards.release()).await;
    released.unwrap();
    assert!(elapsed <= ms(200), "{elapsed:?}");
    assert_eq!(scripted.held(), 0);
}

/// Counts the questions that it is asked.
struct Counting(MemoryBackend, Arc<AtomicUsize>);

impl Backend for Counting {
    type Grant = <MemoryBackend as Backend>::Grant;

    const KIND: &'static str = "counting";

    async fn try_acquire(&self, request: &LockRequest) -> Result<Attempt<Self::Grant>, LockError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.try_acquire(request).await
    }

    async fn try_acquire_many(
        &self,
        requests: &[LockRequest],
        limit: usize,
    ) -> Result<Vec<(usize, Self::Grant)>, LockError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.try_acquire_many(requests, limit).await
    }

    fn changed(&self, request: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        self.0.changed(request)
    }

    async fn health(&self) -> Result<(), LockError> {
        self.0.health().await
    }
}

#[tokio::test]
async fn many_that_are_free_take_few_questions_and_few_that_are_held_not_many_more() {
    let (store, asked) = (MemoryBackend::new(), Arc::<AtomicUsize>::default());
    let here = LockProvider::new(Counting(store.clone(), Arc::clone(&asked)));
    let names: Vec<_> = (0..10_000)
        .map(|number| LockName::new("order", "process", number).unwrap())
        .collect();
    let all = here.acquire_all(&names, s(0)).await.unwrap();
    assert_eq!(all.len(), 10_000);
    let of_free = asked.swap(0, Ordering::Relaxed);
    assert!(of_free < 50, "{of_free}");
    all.release().await.unwrap();
    assert_eq!(store.held(), 0);

    // Of what is held here and there each is waited for, and what is free between is taken immediately.
    let there = LockProvider::new(store.clone());
    let held: Vec<_> = names.iter().step_by(1_000).cloned().collect();
    let held = there.acquire_all(held, s(0)).await.unwrap();
    let all = tokio::spawn(async move { here.acquire_all(names, s(60)).await });
    for guard in held {
        tokio::task::yield_now().await;
        drop(guard);
    }
    assert_eq!(all.await.unwrap().unwrap().len(), 10_000);
    let of_some = asked.load(Ordering::Relaxed);
    assert!(of_some < 500, "{of_some}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_backend_ends_the_acquire_of_all_in_time() {
    for wait in [ms(0), s(3)] {
        let scripted = ScriptedBackend::new();
        scripted.tries([Play::Answer]);
        scripted.every_try(Play::Hang);
        let (elapsed, result) = timed(scripted.client().acquire_all(names(), wait)).await;
        assert!(elapsed <= wait + RESPONSE + SLACK, "{elapsed:?}");
        assert!(result.unwrap_err().is_unavailable());
        tokio::task::yield_now().await;
        assert_eq!(scripted.held(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_backend_does_not_stretch_the_acquire_of_many() {
    let scripted = ScriptedBackend::new();
    scripted.every_try(Play::Late(RESPONSE * 9 / 10));
    let names = (0..10).map(|number| LockName::new("a", "b", number));
    let (elapsed, _) = timed(scripted.client().acquire_all(names, s(1))).await;
    assert!(elapsed <= s(1) + RESPONSE + SLACK, "it took {elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_while_the_rest_was_awaited_is_not_handed_out() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let guard = take(&there).await;
    tokio::spawn(async move {
        sleep(s(5)).await;
        drop(guard);
    });
    let policy = LockPolicy::user_request()
        .with_wait(s(60))
        .with_max_hold(s(2));
    match here.acquire_all(names(), policy).await {
        Ok(guards) => assert!(
            guards.is_valid(),
            "acquired, and lost before the caller had it"
        ),
        Err(error) => assert!(error.is_lost(), "{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_a_silent_backend_ends_and_keeps_the_turns() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::Answer, Play::DoneThenHang]);
    let (elapsed, result) = timed(client.claim(names(), 3)).await;
    took(elapsed, RESPONSE);
    assert!(result.unwrap_err().is_unavailable());
    // No other asks beside the claim; what it is granted goes to who waits, or back.
    let waiting = start(&client, s(60)).await;
    sleep(s(10)).await;
    assert!(!waiting.is_finished());
    assert_eq!(scripted.tried(&name()), 1);
    scripted.let_go();
    let (elapsed, guard) = timed(waiting).await;
    took(elapsed, ms(0));
    guard.unwrap().unwrap().release().await.unwrap();
    assert_eq!(scripted.tried(&name()), 1);
    sleep(ms(1)).await;
    assert_eq!(scripted.held(), 0);
    assert_eq!(scripted.most_under_way(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_fails_keeps_nothing() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::Answer, Play::Fail("down")]);
    let error = client.claim(names(), 3).await.unwrap_err();
    assert!(error.is_unavailable());
    sleep(ms(1)).await;
    assert_eq!(scripted.held(), 0);
    assert_eq!(client.claim(names(), 3).await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_claim_leaves_out_what_somebody_here_waits_for() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let guard = take(&there).await;
    let waiting = start(&here, s(60)).await;
    let claimed = here.claim(names(), 3).await.unwrap();
    assert_eq!(claimed.len(), 2);
    guard.release().await.unwrap();
    drop(waiting.await.unwrap().unwrap());
    // One that is held elsewhere is refused and lets those in who came meanwhile.
    drop(claimed);
    sleep(ms(1)).await;
    let guard = take(&there).await;
    scripted.every_try(Play::Late(ms(50)));
    let claim = {
        let here = here.clone();
        tokio::spawn(async move { here.claim(names(), 3).await.unwrap() })
    };
    sleep(ms(60)).await;
    let (elapsed, free) = timed(is_free(&here)).await;
    assert!(!free);
    assert!(elapsed <= ms(150), "{elapsed:?}");
    assert_eq!(claim.await.unwrap().len(), 2);
    drop(guard);
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_a_limit_to_fill_asks_no_more_than_it_needs() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let claimed = client.claim(names(), 1).await.unwrap();
    assert_eq!(claimed[0].name(), &names()[0]);
    assert_eq!(names().map(|name| scripted.tried(&name)), [1, 0, 0]);
    assert!(client.claim(names(), 0).await.unwrap().is_empty());
    assert_eq!(names().map(|name| scripted.tried(&name)), [1, 0, 0]);
}

/// Nothing of it is waited for, whatever the reason is that nothing is free.
#[tokio::test]
async fn a_loop_over_claims_that_get_nothing_lets_others_run() {
    let store = MemoryBackend::new();
    let (here, there) = (LockProvider::new(store.clone()), LockProvider::new(store));
    let _guards = here.claim(names(), 3).await.unwrap();
    for (client, limit) in [(&here, 3), (&there, 3), (&there, 0)] {
        let other = tokio::spawn(tokio::task::yield_now());
        for _ in 0..10_000 {
            assert!(client.claim(names(), limit).await.unwrap().is_empty());
        }
        assert!(other.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_of_several_locks_is_cancelled_by_the_loss_of_any() {
    let store = MemoryBackend::new();
    let client = LockProvider::new(store.clone());
    for lost in names() {
        let guards = client.acquire_all(names(), Duration::ZERO).await.unwrap();
        let (token, same) = (guards.cancellation_token(), guards.cancellation_token());
        guards.check().unwrap();
        assert!(!token.is_cancelled());
        assert!(store.revoke(&lost));
        token.cancelled().await;
        assert!(same.is_cancelled() && guards.cancellation_token().is_cancelled());
        let error = guards.check().unwrap_err();
        assert_eq!(
            (error.kind(), error.lock()),
            (LockErrorKind::Lost, Some(&lost))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_of_several_locks_outlives_their_release_uncancelled() {
    let client = LockProvider::new(MemoryBackend::new());
    let guards = client.acquire_all(names(), Duration::ZERO).await.unwrap();
    let token = guards.cancellation_token();
    guards.release().await.unwrap();
    sleep(s(1)).await;
    assert!(!token.is_cancelled());
}

#[test]
fn a_loss_that_is_found_without_a_runtime_cancels_the_token() {
    let store = MemoryBackend::new();
    let client = LockProvider::new(store.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let acquire = client.acquire_all(names(), Duration::ZERO);
    let guards = runtime.unwrap().block_on(acquire).unwrap();
    let token = guards.cancellation_token();
    assert!(store.revoke(&names()[1]));
    assert!(!guards.is_valid() && token.is_cancelled());
}
