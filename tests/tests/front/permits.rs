//! Locks that several may hold: slots, the one line before them, and what its first leaves behind.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use lock_core::backend::{Attempt, Backend, LockRequest};
use lock_core::{DistributedLock, LockError, LockGuard, LockName, LockPolicy, LockProvider};
use lock_core::{LossReason, memory::MemoryBackend};
use lock_tests::scripted_backend::{Play, ScriptedBackend};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{sleep, timeout};

use crate::support::{RESPONSE, ms, name, poll_once, s, timed, took};

fn permits(client: &LockProvider, number: usize) -> DistributedLock {
    client.lock(name()).unwrap().permits(number)
}

fn slot(number: usize) -> LockName {
    let lock = LockProvider::new(MemoryBackend::new())
        .lock(name())
        .unwrap();
    lock.permits(number).slots().last().unwrap()
}

/// Takes so many permits of so many that are free.
async fn take(lock: &DistributedLock, number: usize) -> Vec<LockGuard> {
    let mut guards = Vec::new();
    for _ in 0..number {
        guards.push(lock.acquire(Duration::ZERO).await.unwrap());
    }
    guards
}

async fn is_contended(lock: &DistributedLock) -> bool {
    lock.try_acquire(Duration::ZERO).await.unwrap().is_none()
}

/// A waiter of its own accord, in line when this returns.
async fn wait(lock: &DistributedLock, policy: impl Into<LockPolicy>) -> Waiter {
    let mut acquire = lock.acquire_owned(policy);
    assert!(poll_once(&mut acquire).is_none(), "none is free");
    let waiter = tokio::spawn(acquire);
    yield_now().await;
    waiter
}

type Waiter = JoinHandle<Result<LockGuard, LockError>>;

/// How many tries of all slots there were.
fn tried(scripted: &ScriptedBackend, number: usize) -> u32 {
    (1..=number)
        .map(|number| scripted.tried(&slot(number)))
        .sum()
}

#[tokio::test(start_paused = true)]
async fn so_many_hold_a_lock_with_permits_and_no_more() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let mut guards = take(&permits(&here, 5), 3).await;
    guards.extend(take(&permits(&there, 5), 2).await);
    let names: BTreeSet<_> = guards.iter().map(|guard| guard.name().clone()).collect();
    assert_eq!(names, permits(&here, 5).slots().collect());
    for client in [&here, &there] {
        assert!(is_contended(&permits(client, 5)).await);
        let (elapsed, result) = timed(permits(client, 5).acquire(ms(700))).await;
        took(elapsed, ms(700));
        assert!(result.unwrap_err().is_contended());
    }
    guards.swap_remove(1).release().await.unwrap();
    let guard = permits(&there, 5).acquire(Duration::ZERO).await.unwrap();
    assert!(guard.is_valid() && guards.iter().all(LockGuard::is_valid));
}

#[tokio::test(start_paused = true)]
async fn numbers_of_permits_that_cannot_be_are_errors_of_the_setup() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    for number in [0, 257, usize::MAX] {
        let error = permits(&client, number).acquire(s(1)).await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        assert!(error.to_string().contains(&format!("permits({number})")));
        assert_eq!(permits(&client, number).slots().count(), 0);
    }
    drop(take(&permits(&client, 256), 256).await);
    assert_eq!(tried(&scripted, 256), 256, "each is asked for once");
}

/// They are other locks, also where there is one permit.
#[tokio::test(start_paused = true)]
async fn a_permit_does_not_exclude_the_plain_lock_of_its_name() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let _plain = client.acquire(name(), Duration::ZERO).await.unwrap();
    let guards = take(&permits(&client, 1), 1).await;
    assert_eq!(guards[0].name().as_str(), "order:process:42#1");
    assert!(is_contended(&permits(&client, 1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_client_with_fewer_permits_sees_the_first_slots_alone() {
    let scripted = ScriptedBackend::new();
    let (few, many) = (
        permits(&scripted.client(), 2),
        permits(&scripted.client(), 5),
    );
    let first = take(&few, 2).await;
    assert!(is_contended(&few).await);
    let rest = take(&many, 3).await;
    assert!(is_contended(&many).await);
    drop(rest);
    sleep(ms(1)).await;
    assert!(is_contended(&few).await, "it does not know of those");
    drop(first);
    sleep(ms(1)).await;
    assert!(!is_contended(&few).await);
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_order_by_whichever_slot_is_free_first() {
    for hands_over in [false, true] {
        let scripted = ScriptedBackend::new();
        if hands_over {
            scripted.hand_over();
        }
        scripted.every_try(Play::Late(ms(1)));
        let lock = permits(&scripted.client(), 5);
        let mut guards = take(&lock, 5).await;
        let mut waiters = Vec::new();
        for _ in 0..30 {
            waiters.push(wait(&lock, s(600)).await);
        }
        for (number, waiter) in waiters.into_iter().enumerate() {
            let guard = guards.swap_remove(number * 7 % 5);
            guard.release().await.unwrap();
            guards.push(timeout(s(5), waiter).await.unwrap().unwrap().unwrap());
            let names: BTreeSet<_> = guards.iter().map(LockGuard::name).collect();
            assert_eq!(names.len(), 5);
        }
        assert_eq!(scripted.held(), 5);
        assert_eq!(scripted.most_under_way(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_handed_over_without_the_store() {
    let scripted = ScriptedBackend::new();
    scripted.hand_over();
    let client = LockProvider::builder(scripted.backend())
        .local_handover(s(600))
        .build();
    let lock = permits(&client, 3);
    let mut guards = take(&lock, 3).await;
    let before = tried(&scripted, 3);
    let mut waiters = Vec::new();
    for _ in 0..30 {
        waiters.push(wait(&lock, s(60)).await);
    }
    let mut tokens = [0; 4].map(|_| None);
    for waiter in waiters {
        guards.remove(0).release().await.unwrap();
        let guard = waiter.await.unwrap().unwrap();
        let number: usize = guard
            .name()
            .as_str()
            .rsplit('#')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let token = Some(guard.fencing_token().await.unwrap());
        assert!(token > tokens[number], "those of one slot grow");
        tokens[number] = token;
        guards.push(guard);
    }
    assert_eq!(tried(&scripted, 3), before);
}

/// Counts the questions for many locks. Backends answer each of them by itself, and tries of all callers together.
#[derive(Clone)]
struct Counting {
    memory: MemoryBackend,
    many: Arc<AtomicUsize>,
}

impl Backend for Counting {
    type Grant = <MemoryBackend as Backend>::Grant;

    const KIND: &'static str = "counting";

    async fn try_acquire(&self, request: &LockRequest) -> Result<Attempt<Self::Grant>, LockError> {
        self.memory.try_acquire(request).await
    }

    async fn try_acquire_many(
        &self,
        requests: &[LockRequest],
        limit: usize,
    ) -> Result<Vec<(usize, Self::Grant)>, LockError> {
        self.many.fetch_add(1, Relaxed);
        self.memory.try_acquire_many(requests, limit).await
    }

    fn changed(&self, request: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        self.memory.changed(request)
    }

    async fn health(&self) -> Result<(), LockError> {
        self.memory.health().await
    }
}

/// Of which the first question for many is not answered, so that each slot is asked for alone.
#[derive(Clone)]
struct Registering {
    memory: MemoryBackend,
    registered: Arc<AtomicUsize>,
}

impl Backend for Registering {
    type Grant = <MemoryBackend as Backend>::Grant;

    const KIND: &'static str = "registering";

    async fn try_acquire(&self, request: &LockRequest) -> Result<Attempt<Self::Grant>, LockError> {
        sleep(ms(1)).await;
        self.memory.try_acquire(request).await
    }

    async fn try_acquire_many(
        &self,
        _: &[LockRequest],
        _: usize,
    ) -> Result<Vec<(usize, Self::Grant)>, LockError> {
        Err(LockError::unavailable("no answer"))
    }

    fn changed(&self, request: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        self.registered.fetch_add(1, Relaxed);
        self.memory.changed(request)
    }

    async fn health(&self) -> Result<(), LockError> {
        self.memory.health().await
    }
}

/// A registration tells the holder that it is waited for. The waiter that goes on with what such a try found out misses
/// no release.
#[tokio::test(start_paused = true)]
async fn a_try_of_permits_that_does_not_wait_registers_nothing() {
    let registered = Arc::new(AtomicUsize::new(0));
    let backend = Registering {
        memory: MemoryBackend::new(),
        registered: Arc::clone(&registered),
    };
    let (here, there) = (
        LockProvider::new(backend.clone()),
        permits(&LockProvider::new(backend), 2),
    );
    let mut held = Vec::new();
    for slot in permits(&here, 2).slots() {
        held.push(here.acquire(slot, Duration::ZERO).await.unwrap());
    }
    assert!(is_contended(&there).await);
    assert_eq!(registered.load(Relaxed), 0);
    let mut attempt = there.acquire_owned(Duration::ZERO);
    assert!(poll_once(&mut attempt).is_none());
    let waiter = wait(&there, s(60)).await;
    assert!(attempt.await.unwrap_err().is_contended());
    assert_eq!(registered.load(Relaxed), 0);
    sleep(s(1)).await;
    assert!(registered.load(Relaxed) >= 2);
    held.pop().unwrap().release().await.unwrap();
    let (elapsed, guard) = timed(waiter).await;
    took(elapsed, ms(1));
    assert!(guard.unwrap().unwrap().is_valid());
}

#[tokio::test]
async fn a_permit_of_a_lock_that_nobody_holds_is_asked_for_as_a_lock_is() {
    let many = Arc::new(AtomicUsize::new(0));
    let backend = Counting {
        memory: MemoryBackend::new(),
        many: Arc::clone(&many),
    };
    let (here, there) = (
        permits(&LockProvider::new(backend.clone()), 3),
        permits(&LockProvider::new(backend), 3),
    );
    let first = take(&here, 1).await;
    assert_eq!(many.load(Relaxed), 0);
    // Each is found whichever slot is looked at first, and no try is refused before all were looked at together.
    let others = take(&there, 2).await;
    assert!(many.load(Relaxed) <= 2);
    assert!(is_contended(&here).await);
    drop((first, others));
}

/// The one line costs the store what one waiter does, also from seeker to seeker.
#[tokio::test(start_paused = true)]
async fn a_thousand_waiters_ask_the_store_for_each_slot_once() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (
        permits(&scripted.client(), 5),
        permits(&scripted.client(), 5),
    );
    let mut held = take(&there, 5).await;
    let before = tried(&scripted, 5);
    let mut waiters = Vec::new();
    for _ in 0..1_000 {
        waiters.push(wait(&here, s(60)).await);
    }
    sleep(s(1)).await;
    // One question for the first slot, one for all, and one with a registration.
    assert!(tried(&scripted, 5) <= before + 11);
    held.pop().unwrap().release().await.unwrap();
    let mut waiters = waiters.into_iter();
    let guard = waiters.next().unwrap().await.unwrap().unwrap();
    sleep(s(1)).await;
    // The scripted store tells all of each release: the next seeker asks again for what it waits for.
    assert!(
        tried(&scripted, 5) <= before + 17,
        "{}",
        tried(&scripted, 5) - before
    );
    assert_eq!(scripted.most_under_way(), 1);
    drop((guard, held));
    for waiter in waiters {
        waiter.await.unwrap().unwrap().release().await.unwrap();
    }
    sleep(ms(1)).await;
    assert_eq!(scripted.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_try_that_does_not_wait_is_refused_behind_waiters_without_the_store() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (
        permits(&scripted.client(), 3),
        permits(&scripted.client(), 3),
    );
    let _held = take(&there, 3).await;
    let _first = wait(&here, s(60)).await;
    let before = tried(&scripted, 3);
    scripted.every_try(Play::Hang);
    let (elapsed, is_contended) = timed(is_contended(&here)).await;
    took(elapsed, ms(0));
    assert!(is_contended);
    assert_eq!(tried(&scripted, 3), before);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_first_wait_lets_the_next_in_line_go_on() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (
        permits(&scripted.client(), 3),
        permits(&scripted.client(), 3),
    );
    let mut held = take(&there, 3).await;
    let first = wait(&here, s(1)).await;
    let second = wait(&here, s(60)).await;
    let (elapsed, refused) = timed(first).await;
    took(elapsed, s(1));
    assert!(refused.unwrap().unwrap_err().is_contended());
    sleep(s(1)).await;
    let before = tried(&scripted, 3);
    assert_eq!(
        before,
        3 + 7,
        "what the first has found out is not asked for again"
    );
    held.pop().unwrap().release().await.unwrap();
    let (elapsed, guard) = timed(second).await;
    took(elapsed, ms(0));
    assert!(guard.unwrap().unwrap().is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_seeker_that_is_cancelled_leaves_nothing_behind() {
    for moment in 0..12 {
        let scripted = ScriptedBackend::new();
        scripted.hand_over();
        scripted.every_try(Play::Late(ms(2)));
        let (here, there) = (scripted.client(), scripted.client());
        let (lock, other) = (permits(&here, 3), permits(&there, 3));
        let mine = take(&lock, 1).await;
        let held = take(&other, 2).await;
        let seeker = wait(&lock, s(60)).await;
        let (next, last) = (wait(&lock, s(60)).await, wait(&lock, s(60)).await);
        sleep(ms(moment)).await;
        drop((mine, held));
        sleep(ms(moment % 5)).await;
        seeker.abort();
        drop(seeker.await);
        for waiter in [next, last] {
            drop(timeout(s(2), waiter).await.unwrap().unwrap().unwrap());
        }
        sleep(ms(50)).await;
        assert_eq!(scripted.held(), 0, "at {moment}");
        assert_eq!(take(&other, 3).await.len(), 3);
        let (elapsed, _) = timed(here.shutdown(s(60))).await;
        took(elapsed, ms(0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_granted_late_goes_to_the_next_in_line_or_back() {
    for is_awaited in [true, false] {
        let scripted = ScriptedBackend::new();
        scripted.every_try(Play::DoneThenLate(ms(500)));
        let lock = permits(&scripted.client(), 2);
        let leaves = wait(&lock, s(60)).await;
        let next = match is_awaited {
            true => Some(wait(&lock, s(60)).await),
            false => None,
        };
        sleep(ms(100)).await;
        assert_eq!(scripted.held(), 1, "one question holds no more than one");
        leaves.abort();
        if let Some(next) = next {
            let (elapsed, guard) = timed(next).await;
            assert!(elapsed <= ms(600), "{elapsed:?}");
            drop(guard.unwrap().unwrap());
        }
        sleep(s(2)).await;
        assert_eq!(scripted.held(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slot_without_an_answer_makes_the_permit_unavailable() {
    for wait in [ms(0), ms(300), s(3)] {
        let scripted = ScriptedBackend::new();
        let lock = permits(&scripted.client(), 2);
        let _held = take(&lock, 1).await;
        scripted.every_try(Play::Hang);
        let (elapsed, result) = timed(lock.acquire(wait)).await;
        let error = result.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        assert!(elapsed <= wait + RESPONSE + ms(100), "{elapsed:?}");
        assert!(elapsed >= wait.max(RESPONSE), "{elapsed:?}");
    }
    let scripted = ScriptedBackend::new();
    let lock = permits(&scripted.client(), 2);
    scripted.every_try(Play::Fail("no route"));
    let (elapsed, result) = timed(lock.acquire(s(2))).await;
    took(elapsed, s(2));
    let error = result.unwrap_err();
    assert!(
        error.is_unavailable() && error.to_string().contains("no route"),
        "{error}"
    );
    assert!(
        tried(&scripted, 2) < 40,
        "pauses grow: {}",
        tried(&scripted, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_back_is_asked_again() {
    let scripted = ScriptedBackend::new();
    let lock = permits(&scripted.client(), 2);
    scripted.every_try(Play::Fail("no route"));
    let waiter = wait(&lock, s(60)).await;
    sleep(s(5)).await;
    scripted.behave();
    let (elapsed, guard) = timed(waiter).await;
    assert!(elapsed <= s(2), "{elapsed:?}");
    guard.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_tells_of_no_change_is_asked_in_its_time() {
    let scripted = ScriptedBackend::new();
    scripted.fall_silent(ms(400));
    let (here, there) = (
        permits(&scripted.client(), 3),
        permits(&scripted.client(), 3),
    );
    let held = take(&there, 3).await;
    let waiter = wait(&here, s(60)).await;
    sleep(s(1)).await;
    drop(held);
    let (elapsed, guard) = timed(waiter).await;
    assert!(elapsed <= ms(400), "{elapsed:?}");
    assert!(guard.unwrap().unwrap().is_valid());
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_one_permit_is_that_of_its_holder() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let lock = permits(&client, 3);
    let guards = take(&lock, 3).await;
    let waiter = wait(&lock, s(60)).await;
    scripted.lose(guards[1].name(), LossReason::Revoked);
    assert_eq!(guards[1].lost().await, LossReason::Revoked);
    let guard = timeout(s(1), waiter).await.unwrap().unwrap().unwrap();
    assert_eq!(guard.name(), guards[1].name());
    assert!(guards[0].is_valid() && !guards[1].is_valid() && guards[2].is_valid());
    let error = guards[1].check().unwrap_err();
    assert_eq!(error.lock(), Some(guards[1].name()));
    assert!(!error.to_string().contains("42"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_longest_hold_of_a_permit_frees_it_for_the_next() {
    let scripted = ScriptedBackend::new();
    let lock = permits(&scripted.client(), 2);
    let policy = LockPolicy::user_request().with_max_hold(s(3));
    let hung = [
        lock.acquire(policy).await.unwrap(),
        lock.acquire(s(1)).await.unwrap(),
    ];
    let (elapsed, guard) = timed(lock.acquire(s(60))).await;
    assert!(elapsed >= s(3) && elapsed <= s(3) + ms(200), "{elapsed:?}");
    assert_eq!(guard.unwrap().name(), hung[0].name());
    assert!(!hung[0].is_valid() && hung[1].is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_sends_those_away_who_wait_for_a_permit() {
    let scripted = ScriptedBackend::new();
    let (here, there) = (scripted.client(), scripted.client());
    let lock = permits(&here, 3);
    let (mine, theirs) = (take(&lock, 1).await, take(&permits(&there, 3), 2).await);
    let waiters = [wait(&lock, s(60)).await, wait(&lock, s(60)).await];
    let end = here.shutdown(ms(100)).await;
    assert_eq!((end.released, end.forfeited), (0, 1));
    for waiter in waiters {
        assert!(waiter.await.unwrap().unwrap_err().is_closed());
    }
    assert!(lock.acquire(s(1)).await.unwrap_err().is_closed());
    assert!(!mine[0].is_valid() && theirs[0].is_valid());
    assert_eq!(scripted.held(), 2);
}

/// Tasks that are not polled any more keep no slot from others.
#[tokio::test(start_paused = true)]
async fn a_seeker_that_sleeps_keeps_no_slot_from_others() {
    let scripted = ScriptedBackend::new();
    scripted.hand_over();
    let (here, there) = (
        permits(&scripted.client(), 2),
        permits(&scripted.client(), 2),
    );
    let held = take(&here, 2).await;
    let mut asleep = here.acquire_owned(s(60));
    assert!(poll_once(&mut asleep).is_none());
    drop(held);
    let mut guards = Vec::new();
    for _ in 0..2 {
        guards.push(timeout(s(2), there.acquire(s(60))).await.unwrap().unwrap());
    }
    drop(guards);
    sleep(ms(1)).await;
    let (elapsed, guard) = timed(asleep).await;
    took(elapsed, ms(0));
    assert!(guard.unwrap().is_valid());
}

/// One of memory is ready at its first poll, also outside a runtime.
#[test]
fn a_permit_of_memory_that_is_free_is_acquired_anywhere() {
    let client = LockProvider::new(MemoryBackend::new());
    let lock = permits(&client, 3);
    let guards: Vec<_> = (0..3)
        .map(|_| {
            poll_once(&mut lock.acquire_owned(Duration::ZERO))
                .unwrap()
                .unwrap()
        })
        .collect();
    let refused = poll_once(&mut lock.acquire_owned(Duration::ZERO)).unwrap();
    assert!(refused.unwrap_err().is_contended());
    drop(guards);
}

/// Futures of it can be sent, and are small as those of a lock are.
#[test]
fn an_acquire_of_a_permit_is_no_larger_than_that_of_a_lock() {
    fn size<F: Future + Send>(future: &F) -> usize {
        size_of_val(future)
    }
    let client = LockProvider::new(MemoryBackend::new());
    let plain = client.lock(name()).unwrap().acquire_owned(s(1));
    assert_eq!(size(&plain), size(&permits(&client, 5).acquire_owned(s(1))));
}

/// This process stood still while the answer was on its way: of the other slots it knows nothing.
#[tokio::test(start_paused = true)]
async fn a_permit_that_came_too_late_says_nothing_of_the_others() {
    for wait in [ms(0), s(60)] {
        let scripted = ScriptedBackend::new();
        let lock = permits(&scripted.client(), 2);
        scripted.tries([Play::DoneThenLate(ms(100))]);
        // That one stays held.
        scripted.every_release(Play::Hang);
        let acquiring = tokio::spawn(lock.acquire_owned(wait));
        sleep(ms(50)).await;
        let tried = [slot(1), slot(2)]
            .into_iter()
            .find(|slot| scripted.tried(slot) > 0);
        scripted.expire(&tried.unwrap());
        let guard = acquiring.await.unwrap().expect("the other one is free");
        assert!(guard.is_valid());
    }
}

/// As of a cluster of which one node is down.
#[tokio::test(start_paused = true)]
async fn a_free_permit_is_granted_although_another_slot_has_no_answer() {
    let scripted = ScriptedBackend::new();
    let lock = permits(&scripted.client(), 2);
    scripted.tries([Play::Fail("no route")]);
    let (elapsed, guard) = timed(lock.acquire(Duration::ZERO)).await;
    took(elapsed, ms(0));
    assert!(guard.unwrap().is_valid());
    // None is free.
    scripted.every_try(Play::Fail("no route"));
    let error = lock.acquire(Duration::ZERO).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("no route"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn any_holder_of_a_permit_is_named() {
    let store = MemoryBackend::new();
    let client = LockProvider::new(store.clone().with_instance("web-1").unwrap());
    let lock = permits(&LockProvider::new(store), 5);
    assert_eq!(lock.holder().await.unwrap(), None);
    let _one = take(&permits(&client, 5), 1).await;
    let holder = lock.holder().await.unwrap().unwrap();
    assert_eq!(holder.instance(), Some("web-1"));
    let plain = client.holder(name()).await.unwrap();
    assert_eq!(plain, None, "it is another lock");
    let error = permits(&client, 0).holder().await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
}
