//! Work under many guards: a loss of any of them stops it, and its polls do not look at each of them.

use std::cell::Cell;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use lock_core::backend::{Clock, TokioClock};
use lock_core::memory::MemoryBackend;
use lock_core::{LockErrorKind, LockGuards, LockPolicy, LockProvider};
use tokio::task::yield_now;
use tokio::time::{advance, sleep, timeout};

use crate::support::{Counting, ms, s, timed, took};

const LOCKS: usize = 1_000;

/// How often the work is polled.
const TURNS: usize = 1_000;

async fn take_all(client: &LockProvider, policy: impl Into<LockPolicy>) -> LockGuards {
    let names = (0..LOCKS).map(|number| format!("order:process:{number:04}"));
    client.acquire_all(names, policy).await.unwrap()
}

/// Without leases.
async fn guards() -> (MemoryBackend, LockGuards) {
    let store = MemoryBackend::new();
    let guards = take_all(&LockProvider::new(store.clone()), s(0)).await;
    (store, guards)
}

/// Some of a thousand, the first and the last among them.
fn some() -> impl Iterator<Item = usize> {
    (0..LOCKS).step_by(111)
}

#[tokio::test(start_paused = true)]
async fn a_loss_of_any_of_many_stops_the_work_at_its_next_await() {
    for at in some() {
        let (store, guards) = guards().await;
        let (lost, goes_on) = (guards[at].name().clone(), Cell::new(false));
        let work = async {
            for _ in 0..10 {
                yield_now().await;
            }
            assert!(store.revoke(&lost));
            yield_now().await;
            goes_on.set(true);
        };
        let error = guards.protect(work).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost);
        assert_eq!(error.lock(), Some(&lost));
        assert!(!goes_on.get());
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_waits_is_woken_by_a_loss_of_any_of_many() {
    for at in some() {
        let (store, guards) = guards().await;
        let revoke = async {
            sleep(ms(10)).await;
            assert!(store.revoke(guards[at].name()));
        };
        let stopped = timeout(s(1), guards.protect(pending::<()>()));
        let (stopped, ()) = tokio::join!(stopped, revoke);
        let error = stopped.expect("the loss wakes it").unwrap_err();
        assert_eq!(error.lock(), Some(guards[at].name()));
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_never_waits_sees_a_loss_by_another_task() {
    let (store, guards) = guards().await;
    let lost = guards[LOCKS / 2].name().clone();
    let revoking = tokio::spawn(async move {
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(store.revoke(&lost));
    });
    let turns = Cell::new(0);
    let work = async {
        for _ in 0..TURNS {
            turns.set(turns.get() + 1);
            yield_now().await;
        }
    };
    assert!(guards.protect(work).await.unwrap_err().is_lost());
    assert!(turns.get() < 100, "{} turns", turns.get());
    revoking.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_loss_before_the_work_waits_for_the_first_time_is_seen() {
    let (store, guards) = guards().await;
    let goes_on = Cell::new(false);
    let work = async {
        assert!(store.revoke(guards[LOCKS / 2].name()));
        yield_now().await;
        goes_on.set(true);
    };
    assert!(guards.protect(work).await.unwrap_err().is_lost());
    assert!(!goes_on.get());
}

fn leases(lease: Duration) -> (Arc<Counting<TokioClock>>, LockProvider) {
    let clock = Arc::new(Counting::new(TokioClock::new()));
    let measured: Arc<dyn Clock> = clock.clone();
    let store = MemoryBackend::with_lease(lease, measured);
    (clock, LockProvider::new(store))
}

/// As in a process that was frozen: no timer has come before the work.
#[tokio::test(start_paused = true)]
async fn leases_that_end_in_an_await_stop_the_work_there() {
    let (_, client) = leases(s(3));
    let guards = take_all(&client, s(0)).await;
    let goes_on = Cell::new(false);
    let work = async {
        yield_now().await;
        advance(s(3)).await;
        goes_on.set(true);
    };
    assert!(guards.protect(work).await.unwrap_err().is_lost());
    assert!(!goes_on.get());
}

#[tokio::test(start_paused = true)]
async fn work_that_waits_ends_with_the_leases_or_with_the_longest_hold() {
    let max_hold = LockPolicy::background_job().with_max_hold(s(2));
    for (policy, lasts) in [(LockPolicy::background_job(), s(3)), (max_hold, s(2))] {
        let (_, client) = leases(s(3));
        let guards = take_all(&client, policy).await;
        let (elapsed, stopped) = timed(guards.protect(pending::<()>())).await;
        assert!(stopped.unwrap_err().is_lost());
        took(elapsed, lasts);
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_of_the_work_does_not_look_at_all_guards() {
    let (clock, client) = leases(s(60));
    let guards = take_all(&client, s(0)).await;
    let before = clock.looks();
    let work = async {
        for _ in 0..TURNS {
            yield_now().await;
        }
    };
    guards.protect(work).await.unwrap();
    let looks = clock.looks() - before;
    assert!(looks < 10 * (LOCKS + TURNS), "{looks} looks");
}
