//! Callers that leave: what they asked for goes to the next in line or back.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use lock_core::backend::{Attempt, Backend, Grant, Lease, LockRequest};
use lock_core::{LockError, LockProvider};
use lock_tests::abandon;
use lock_tests::scripted_backend::{Play, ScriptedBackend};
use tokio::time::sleep;

use crate::support::{is_free, ms, name, poll_once, runtime, s, start, take, timed, took};

#[tokio::test(start_paused = true)]
async fn a_question_whose_caller_left_keeps_the_turn_until_it_is_answered() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::Hang]);
    let first = start(&client, s(60)).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let second = start(&client, s(60)).await;
    sleep(s(30)).await;
    assert_eq!(scripted.tried(&name()), 1, "one question at a time");
    assert_eq!(scripted.under_way(&name()), 1, "it is asked to the end");
    assert!(!second.is_finished());
    scripted.let_go();
    second.await.unwrap().unwrap().release().await.unwrap();
    assert_eq!(
        scripted.tried(&name()),
        1,
        "its grant went to the next in line"
    );
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_nobody_awaits_goes_back() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    for play in [Play::Late(ms(50)), Play::DoneThenLate(ms(50))] {
        scripted.tries([play]);
        let first = start(&here, s(60)).await;
        sleep(ms(10)).await;
        first.abort();
        sleep(ms(50)).await;
        assert_eq!(scripted.held(), 0);
        assert!(is_free(&there).await && is_free(&here).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_nobody_awaits_lets_the_next_ask() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let guard = take(&there).await;
    scripted.tries([Play::DoneThenLate(ms(50))]);
    let first = start(&here, s(60)).await;
    let second = start(&here, s(60)).await;
    first.abort();
    guard.release().await.unwrap();
    let (elapsed, guard) = timed(second).await;
    took(elapsed, ms(50));
    drop(guard.unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn one_who_gave_up_waiting_for_an_answer_passes_its_grant_on() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::DoneThenHang]);
    let error = client
        .lock(name())
        .unwrap()
        .acquire(ms(0))
        .await
        .unwrap_err();
    assert!(error.is_unavailable());
    let next = start(&client, s(60)).await;
    scripted.let_go();
    let (elapsed, guard) = timed(next).await;
    took(elapsed, ms(0));
    drop(guard.unwrap().unwrap());
    assert_eq!(scripted.tried(&name()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_was_handed_to_one_who_leaves_as_well_goes_further() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::DoneThenLate(ms(20))]);
    let first = start(&client, s(60)).await;
    let mut second = client.lock(name()).unwrap().acquire_owned(s(60));
    assert!(poll_once(&mut second).is_none());
    let third = start(&client, s(60)).await;
    first.abort();
    sleep(ms(30)).await;
    // The second was called and never looked.
    drop(second);
    let (elapsed, guard) = timed(third).await;
    took(elapsed, ms(0));
    guard.unwrap().unwrap().release().await.unwrap();
    assert_eq!(scripted.tried(&name()), 1);
    assert_eq!(scripted.held(), 0);
}

/// What happens around an acquire that is dropped after some polls.
async fn scene(number: usize, polls: u32) -> (ScriptedBackend, bool) {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let lock = here.lock(name()).unwrap();
    let end = match number {
        // Free, but far away.
        0 => {
            scripted.every_try(Play::DoneThenLate(ms(10)));
            abandon(lock.acquire(s(60)), polls).await.is_some()
        }
        // Held elsewhere, with a release on the way.
        1 => {
            let guard = take(&there).await;
            scripted.every_try(Play::Late(ms(10)));
            tokio::spawn(async move {
                sleep(ms(55)).await;
                guard.release().await
            });
            abandon(lock.acquire(s(60)), polls).await.is_some()
        }
        // Held here, with others in line.
        2 => {
            let guard = take(&here).await;
            scripted.every_try(Play::Late(ms(10)));
            let before = start(&here, s(60)).await;
            tokio::spawn(async move {
                sleep(ms(25)).await;
                drop(guard);
                drop(before.await);
            });
            abandon(lock.acquire(s(60)), polls).await.is_some()
        }
        // Behind a question whose caller leaves, so that a grant is handed on.
        3 => {
            scripted.tries([Play::DoneThenLate(ms(20))]);
            let before = start(&here, s(60)).await;
            tokio::spawn(async move {
                sleep(ms(5)).await;
                before.abort();
            });
            abandon(lock.acquire(s(60)), polls).await.is_some()
        }
        // Down for a while.
        4 => {
            scripted.tries([
                Play::Fail("down"),
                Play::FailLate(ms(7), "down"),
                Play::Fail("down"),
            ]);
            abandon(lock.acquire(s(60)), polls).await.is_some()
        }
        // Held elsewhere until the wait is over.
        5 => {
            let guard = take(&there).await;
            scripted.every_try(Play::Late(ms(10)));
            let end = abandon(lock.acquire(ms(35)), polls).await.is_some();
            drop(guard);
            end
        }
        // A release that takes its time.
        6 => {
            let guard = take(&here).await;
            scripted.every_release(Play::Late(ms(10)));
            abandon(guard.release(), polls).await.is_some()
        }
        // Several together, one of them held.
        7 => {
            let guard = take(&there).await;
            scripted.every_try(Play::DoneThenLate(ms(10)));
            tokio::spawn(async move {
                sleep(ms(55)).await;
                guard.release().await
            });
            let names = ["a:b:c", "order:process:42", "x:y:z"];
            abandon(here.acquire_all(names, s(60)), polls)
                .await
                .is_some()
        }
        // Some of several.
        8 => {
            scripted.every_try(Play::DoneThenLate(ms(10)));
            let names = ["a:b:c", "order:process:42", "x:y:z"];
            abandon(here.claim(names, 2), polls).await.is_some()
        }
        _ => unreachable!("there is no such scene"),
    };
    // What goes on by itself has come to its end.
    sleep(s(5)).await;
    assert_eq!(
        scripted.held(),
        0,
        "scene {number}: something is held after {polls} polls"
    );
    scripted.behave();
    assert!(
        is_free(&here).await && is_free(&there).await,
        "scene {number}: {polls} polls"
    );
    for client in [&here, &there] {
        client.shutdown(s(1)).await;
    }
    (scripted, end)
}

#[tokio::test(start_paused = true)]
async fn an_acquire_that_is_dropped_at_any_await_point_leaks_nothing() {
    for number in 0..=8 {
        let mut polls = 0;
        loop {
            let (scripted, ended) = scene(number, polls).await;
            assert!(
                scripted.most_under_way() <= 1,
                "scene {number}: two questions at once"
            );
            if ended {
                break;
            }
            polls += 1;
            assert!(polls < 100, "scene {number} does not end");
        }
        assert!(polls >= 2, "scene {number} has await points");
    }
}

/// A backend that never answers, and notes when its questions are dropped and others begin.
#[derive(Clone, Default)]
struct Notebook(Arc<Mutex<Vec<&'static str>>>);

impl Notebook {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }
}

struct Question(Notebook);

impl Drop for Question {
    fn drop(&mut self) {
        self.0.note("the question was dropped");
    }
}

struct Never;

impl Grant for Never {
    fn lease(&self) -> &Lease {
        unreachable!("nothing is granted")
    }

    async fn release(self) -> Result<(), LockError> {
        Ok(())
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        std::future::pending()
    }
}

impl Backend for Notebook {
    type Grant = Never;
    const KIND: &'static str = "notebook";

    async fn try_acquire(&self, _: &LockRequest) -> Result<Attempt<Never>, LockError> {
        let _question = Question(self.clone());
        std::future::pending().await
    }

    fn changed(&self, _: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }

    async fn health(&self) -> Result<(), LockError> {
        Ok(())
    }
}

impl Wake for Notebook {
    fn wake(self: Arc<Self>) {
        self.note("the next was called");
    }
}

#[test]
fn without_a_runtime_a_question_is_dropped_before_the_next_is_called() {
    let notebook = Notebook::default();
    let client = LockProvider::new(notebook.clone());
    let runtime = runtime();
    let lock = client.lock(name()).unwrap();
    let (mut first, mut second) = (lock.acquire_owned(s(60)), lock.acquire_owned(s(60)));
    runtime.block_on(async {
        assert!(poll_once(&mut first).is_none());
        let waker = Waker::from(Arc::new(notebook.clone()));
        assert!(
            Pin::new(&mut second)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
    });
    drop(first);
    assert_eq!(
        *notebook.0.lock().unwrap(),
        ["the question was dropped", "the next was called"]
    );
    drop(second);
}
