//! The watch over the order of locks: what it reports, and what it leaves alone.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lock_core::memory::MemoryBackend;
use lock_core::{
    LockError, LockGuard, LockProvider, LockProviderBuilder, LockSettings, ProviderKind,
    distributed_lock,
};
use lock_tests::{Lateness, Log};
use tokio::sync::Barrier;
use tracing::Level;
use tracing::subscriber::DefaultGuard;

const WAIT: Duration = Duration::from_secs(5);
const ORDER: &str = "order:ship:4711";
const STOCK: &str = "stock:take:4712";
const OPPOSITE: &str = "two locks are taken in both orders";
const ITSELF: &str = "waits for a lock that it has taken";

/// A provider with the watch on, and what is logged in this thread.
struct Scene {
    locks: LockProvider,
    log: Log,
    _listening: DefaultGuard,
}

impl Scene {
    fn new() -> Self {
        Self::with(true)
    }

    fn with(on: bool) -> Self {
        let (log, listening) = Log::of_thread(Level::WARN);
        Self {
            locks: LockProvider::builder(MemoryBackend::new())
                .lock_order_watch(on)
                .build(),
            log,
            _listening: listening,
        }
    }

    /// A task that takes one lock by hand, and another while it holds that.
    async fn nest(&self, outer: &'static str, inner: &'static str) {
        let locks = self.locks.clone();
        let nesting = tokio::spawn(async move {
            let outer = take(&locks, outer).await;
            let inner = take(&locks, inner).await;
            drop((inner, outer));
        });
        nesting.await.unwrap();
    }

    fn assert_silent(&self) {
        assert_eq!(self.log.text(), "");
    }
}

async fn take(locks: &LockProvider, name: &str) -> LockGuard {
    locks.lock(name).unwrap().acquire(WAIT).await.unwrap()
}

async fn in_a_task<F: Future<Output: Send> + Send + 'static>(future: F) -> F::Output {
    tokio::spawn(future).await.unwrap()
}

#[tokio::test]
async fn opposite_orders_are_reported_once_with_both() {
    let scene = Scene::new();
    scene.nest(ORDER, STOCK).await;
    scene.nest(ORDER, STOCK).await;
    scene.assert_silent();
    for _ in 0..3 {
        scene.nest(STOCK, ORDER).await;
        scene.nest(ORDER, STOCK).await;
    }
    assert_eq!(scene.log.count(OPPOSITE), 1);
    for order in [
        "`order:ship`, then `stock:take`",
        "`stock:take`, then `order:ship`",
    ] {
        assert_eq!(scene.log.count(order), 1, "{}", scene.log.text());
    }
    assert!(
        !scene.log.text().contains("471"),
        "names are nobody's business"
    );
}

#[tokio::test]
async fn two_names_of_one_kind_are_told_apart_by_their_values() {
    let scene = Scene::new();
    scene.nest("account:move:1", "account:move:2").await;
    scene.nest("account:move:2", "account:move:3").await;
    scene.nest("account:move:3", "account:move:1").await;
    scene.assert_silent();
    scene.nest("account:move:2", "account:move:1").await;
    assert_eq!(scene.log.count(OPPOSITE), 1);
}

#[distributed_lock("order:ship:<id>")]
async fn ship_and_take(locks: &LockProvider, id: u64) -> Result<(), LockError> {
    take_from_stock(locks, id).await
}

#[distributed_lock("stock:take:<id>")]
async fn take_from_stock(locks: &LockProvider, id: u64) -> Result<(), LockError> {
    Ok(())
}

#[tokio::test]
async fn annotated_functions_that_call_each_other_are_seen() {
    let scene = Scene::new();
    ship_and_take(&scene.locks, 7).await.unwrap();
    scene.assert_silent();
    let stock = scene.locks.lock(STOCK).unwrap();
    let ship = ship_and_take_nothing(&scene.locks, 7);
    stock.run(WAIT, ship).await.unwrap().unwrap();
    assert_eq!(scene.log.count(OPPOSITE), 1);
    assert_eq!(scene.log.count("`stock:take`, then `order:ship:<id>`"), 1);
}

#[distributed_lock("order:ship:<id>")]
async fn ship_and_take_nothing(locks: &LockProvider, id: u64) -> Result<(), LockError> {
    Ok(())
}

#[tokio::test]
async fn an_order_is_reported_while_the_deadlock_lasts() {
    let scene = Scene::new();
    let meeting = Arc::new(Barrier::new(2));
    let parts = [(ORDER, STOCK), (STOCK, ORDER)].map(|(outer, inner)| {
        let (locks, meeting) = (scene.locks.clone(), Arc::clone(&meeting));
        tokio::spawn(async move {
            let work = async {
                meeting.wait().await;
                take(&locks, inner).await
            };
            let outer = locks.lock(outer).unwrap();
            drop(outer.run(Duration::ZERO, work).await);
        })
    });
    while scene.log.count(OPPOSITE) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(parts.iter().all(|part| !part.is_finished()));
    parts.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_its_own_lock_is_reported_at_once() {
    let scene = Scene::new();
    let started = tokio::time::Instant::now();
    let (locks, log) = (scene.locks.clone(), scene.log.clone());
    in_a_task(async move {
        let _guard = take(&locks, ORDER).await;
        let lock = locks.lock(ORDER).unwrap();
        let mut again = Box::pin(lock.acquire(WAIT));
        assert!(futures_util::poll!(&mut again).is_pending());
        assert_eq!(log.count(ITSELF), 1, "{}", log.text());
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert!(again.await.unwrap_err().is_contended());
        assert!(lock.acquire(WAIT).await.is_err());
    })
    .await;
    assert_eq!(scene.log.count(ITSELF), 1, "once");
    assert!(!scene.log.text().contains("4711"));
}

#[distributed_lock("order:ship:<id>", wait = "1s")]
async fn ship_again(locks: &LockProvider, id: u64, times: u32) -> Result<(), LockError> {
    match times {
        0 => Ok(()),
        _ => Box::pin(ship_again(locks, id, times - 1)).await,
    }
}

#[tokio::test(start_paused = true)]
async fn a_locked_function_that_calls_itself_is_reported() {
    let scene = Scene::new();
    let error = ship_again(&scene.locks, 1, 1).await.unwrap_err();
    assert!(error.is_contended());
    assert_eq!(scene.log.count(ITSELF), 1);
}

#[tokio::test]
async fn what_is_acquired_together_has_no_order() {
    let scene = Scene::new();
    for names in [[ORDER, STOCK], [STOCK, ORDER]] {
        let locks = scene.locks.clone();
        in_a_task(async move {
            let guards = locks.acquire_all(names, WAIT).await.unwrap();
            guards.release().await.unwrap();
            // As templates whose values decide which is first.
            let mixed = ["order:ship:1", "order:ship:2"];
            drop(locks.acquire_all(mixed, WAIT).await.unwrap());
        })
        .await;
        scene.nest(STOCK, ORDER).await;
    }
    scene.assert_silent();
    // But it is inside or outside of others.
    let locks = scene.locks.clone();
    in_a_task(async move {
        let outer = take(&locks, "job:first").await;
        drop(locks.acquire_all([ORDER, STOCK], WAIT).await.unwrap());
        drop(outer);
        let guards = locks.acquire_all([ORDER, STOCK], WAIT).await.unwrap();
        drop(take(&locks, "job:first").await);
        guards.release().await.unwrap();
    })
    .await;
    assert_eq!(scene.log.count(OPPOSITE), 2, "{}", scene.log.text());
}

#[tokio::test]
async fn guards_that_are_handed_to_another_task_say_nothing() {
    let scene = Scene::new();
    for (first, second) in [(ORDER, STOCK), (STOCK, ORDER)] {
        let locks = scene.locks.clone();
        in_a_task(async move {
            // As a program does that hands out work.
            for name in [first, second] {
                let guard = take(&locks, name).await;
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    drop(guard);
                });
            }
        })
        .await;
        drop(scene.locks.acquire_all([ORDER, STOCK], WAIT).await.unwrap());
    }
    scene.assert_silent();
}

#[tokio::test]
async fn waiting_for_work_that_another_task_protects_is_no_deadlock() {
    let scene = Scene::new();
    let locks = scene.locks.clone();
    in_a_task(async move {
        let guard = take(&locks, ORDER).await;
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let work = async {
                begun.send(()).unwrap();
                tokio::task::yield_now().await;
            };
            guard.protect(work).await.unwrap();
        });
        has_begun.await.unwrap();
        drop(take(&locks, ORDER).await);
    })
    .await;
    scene.assert_silent();
}

#[tokio::test]
async fn protected_work_side_by_side_in_one_task_is_not_nested() {
    let scene = Scene::new();
    let work = |name: &'static str| {
        let lock = scene.locks.lock(name).unwrap();
        async move { lock.run(WAIT, tokio::task::yield_now()).await.unwrap() }
    };
    tokio::join!(work(ORDER), work(STOCK), work(ORDER));
    tokio::join!(work(STOCK), work(ORDER), work(STOCK));
    scene.assert_silent();
}

#[tokio::test]
async fn futures_with_wakers_of_their_own_are_not_nested() {
    let scene = Scene::new();
    for names in [[ORDER, STOCK, ORDER], [STOCK, ORDER, STOCK]] {
        let by_hand = names.map(|name| {
            let locks = scene.locks.clone();
            async move {
                let guard = take(&locks, name).await;
                tokio::task::yield_now().await;
                drop(guard);
            }
        });
        let mut crowd: FuturesUnordered<_> = by_hand.into_iter().collect();
        while crowd.next().await.is_some() {}
    }
    scene.assert_silent();
}

#[tokio::test]
async fn a_try_that_does_not_wait_deadlocks_nobody() {
    let scene = Scene::new();
    for (outer, inner) in [(ORDER, STOCK), (STOCK, ORDER)] {
        let locks = scene.locks.clone();
        in_a_task(async move {
            let guard = take(&locks, outer).await;
            let lock = |name| locks.lock(name).unwrap();
            drop(lock(inner).try_acquire(Duration::ZERO).await.unwrap());
            let refused = lock(outer).try_acquire(Duration::ZERO).await.unwrap();
            assert!(refused.is_none());
            guard.release().await.unwrap();
        })
        .await;
    }
    scene.assert_silent();
}

#[tokio::test(start_paused = true)]
async fn what_is_switched_off_reports_nothing() {
    let scene = Scene::with(false);
    scene.nest(ORDER, STOCK).await;
    scene.nest(STOCK, ORDER).await;
    assert!(ship_again(&scene.locks, 1, 1).await.is_err());
    scene.assert_silent();
}

#[tokio::test]
async fn a_provider_from_configuration_has_the_options_of_its_builder() {
    let dir = tempfile::tempdir().unwrap();
    for on in [false, true] {
        let (log, listening) = Log::of_thread(Level::WARN);
        let settings = LockSettings::new()
            .provider(ProviderKind::File)
            .dir(dir.path().join("locks"));
        let builder = LockProviderBuilder::connect(settings).await.unwrap();
        let scene = Scene {
            locks: builder.lock_order_watch(on).build(),
            log,
            _listening: listening,
        };
        scene.nest(ORDER, STOCK).await;
        scene.nest(STOCK, ORDER).await;
        assert_eq!(scene.log.count(OPPOSITE), usize::from(on));
    }
}

#[tokio::test]
async fn thousands_of_guards_of_one_task_are_no_burden() {
    let scene = Scene::new();
    let late = Lateness::of(Duration::ZERO);
    let mut guards = Vec::new();
    for number in 0..10_000 {
        guards.push(take(&scene.locks, &format!("order:ship:{number}")).await);
    }
    drop(guards);
    late.at_most(Duration::from_secs(5)).await;
    scene.assert_silent();
}

/// A lock that this task reads, and a writer in another task that waits for it.
async fn read_before_a_writer(scene: &Scene) -> (LockGuard, tokio::task::JoinHandle<()>) {
    let reader = scene.locks.lock(ORDER).unwrap().shared();
    let guard = reader.acquire(WAIT).await.unwrap();
    let locks = scene.locks.clone();
    let writer = tokio::spawn(async move { drop(take(&locks, ORDER).await) });
    lock_tests::eventually("the writer waits", || async {
        let tried = reader.try_acquire(Duration::ZERO).await;
        tried.unwrap().is_none()
    })
    .await;
    (guard, writer)
}

#[tokio::test]
async fn two_readers_of_a_task_are_no_deadlock() {
    let scene = Scene::new();
    let reader = scene.locks.lock(ORDER).unwrap().shared();
    let one = reader.acquire(WAIT).await.unwrap();
    let other = reader.acquire(WAIT).await.unwrap();
    drop((one, other));
    scene.assert_silent();
}

#[tokio::test]
async fn a_reader_that_waits_behind_a_writer_for_itself_is_reported() {
    let scene = Scene::new();
    let (guard, writer) = read_before_a_writer(&scene).await;
    scene.assert_silent();
    let reader = scene.locks.lock(ORDER).unwrap().shared();
    let again = reader.try_acquire(Duration::from_millis(20)).await.unwrap();
    assert!(again.is_none());
    assert_eq!(scene.log.count("waits to read the same lock again"), 1);
    drop(guard);
    writer.await.unwrap();
}

#[tokio::test]
async fn a_reader_of_another_task_behind_a_writer_is_not_reported() {
    let scene = Scene::new();
    let (guard, writer) = read_before_a_writer(&scene).await;
    let reader = scene.locks.lock(ORDER).unwrap().shared();
    let other = in_a_task(async move { reader.try_acquire(Duration::from_millis(20)).await });
    assert!(other.await.unwrap().is_none());
    drop(guard);
    writer.await.unwrap();
    scene.assert_silent();
}

#[tokio::test]
async fn a_reader_that_waits_to_write_is_reported() {
    let scene = Scene::new();
    let lock = scene.locks.lock(ORDER).unwrap();
    let guard = lock.clone().shared().acquire(WAIT).await.unwrap();
    let upgraded = lock.try_acquire(Duration::from_millis(20)).await.unwrap();
    assert!(upgraded.is_none());
    assert_eq!(scene.log.count("a reader does not become a writer"), 1);
    drop(guard);
}
