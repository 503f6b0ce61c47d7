//! Readers in the line of a name: who asks, who is refused, and what goes from one to the other.

use std::sync::Arc;
use std::time::Duration;

use lock_core::backend::{Clock, TokioClock};
use lock_core::memory::MemoryBackend;
use lock_core::{DistributedLock, LockError, LockGuard, LockPolicy, LockProvider, LossReason};
use lock_tests::scripted_backend::{Play, ScriptedBackend};
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::sleep;

use crate::support::{is_free, ms, name, poll_once, s, start, take, timed, took};

fn reader(client: &LockProvider) -> DistributedLock {
    client.lock(name()).unwrap().shared()
}

/// Reads a lock that no writer holds or waits for.
async fn read(client: &LockProvider) -> LockGuard {
    reader(client).acquire(Duration::ZERO).await.unwrap()
}

async fn is_readable(client: &LockProvider) -> bool {
    let tried = reader(client).try_acquire(Duration::ZERO).await;
    tried.unwrap().is_some()
}

/// A reader of its own accord, in line when this returns.
async fn start_reader(client: &LockProvider) -> JoinHandle<Result<LockGuard, LockError>> {
    let mut acquire = reader(client).acquire_owned(s(60));
    assert!(poll_once(&mut acquire).is_none(), "it waits");
    let task = tokio::spawn(acquire);
    yield_now().await;
    task
}

async fn granted(waiting: JoinHandle<Result<LockGuard, LockError>>) -> LockGuard {
    waiting.await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn readers_ask_one_by_one_and_hold_together() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.every_try(Play::Late(ms(1)));
    let mut readers = JoinSet::new();
    for _ in 0..100 {
        readers.spawn(reader(&client).acquire_owned(s(60)));
    }
    let guards = readers.join_all().await;
    assert_eq!((scripted.held(), scripted.most_under_way()), (100, 1));
    let activity = client.activity();
    let [lock] = activity.locks() else {
        panic!("one lock is held")
    };
    assert_eq!((lock.readers(), lock.waiting()), (100, 0));
    assert!(lock.held_for().is_some());
    drop(guards);
    sleep(ms(1)).await;
    assert_eq!((scripted.held(), client.activity().locks().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_wait_is_granted_beside_readers() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let first = read(&client).await;
    assert!(is_readable(&client).await && !is_free(&client).await);
    // Behind the question of another reader, and behind that of a writer that does not wait.
    for other in [reader(&client), client.lock(name()).unwrap()] {
        scripted.tries([Play::Late(ms(40))]);
        let other = tokio::spawn(async move { other.try_acquire(Duration::ZERO).await });
        sleep(ms(10)).await;
        let (elapsed, is_readable) = timed(is_readable(&client)).await;
        took(elapsed, ms(30));
        assert!(is_readable);
        drop(other.await.unwrap().unwrap());
    }
    assert!(first.is_valid());
}

#[tokio::test(start_paused = true)]
async fn writers_that_do_not_wait_are_refused_together_beside_readers() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let _first = read(&client).await;
    scripted.every_try(Play::Late(ms(40)));
    let before = scripted.tried(&name());
    let mut writers = JoinSet::new();
    for _ in 0..50 {
        writers.spawn(client.lock(name()).unwrap().acquire_owned(Duration::ZERO));
    }
    let (elapsed, refused) = timed(writers.join_all()).await;
    took(elapsed, ms(40));
    for refused in refused {
        assert!(refused.unwrap_err().is_contended());
    }
    assert_eq!(scripted.tried(&name()), before + 1, "one asked for all");
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_waits_keeps_later_readers_in_line_and_refuses_those_who_do_not_wait() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let first = read(&client).await;
    let writer = start(&client, s(60)).await;
    assert!(!is_readable(&client).await);
    let behind = start_reader(&client).await;
    let activity = client.activity();
    assert_eq!(activity.locks()[0].waiting(), 2);
    assert_eq!(activity.locks()[0].readers(), 1);
    first.release().await.unwrap();
    let writer = granted(writer).await;
    assert!(!is_readable(&client).await && !behind.is_finished());
    assert_eq!(client.activity().locks()[0].readers(), 0);
    writer.release().await.unwrap();
    let behind = granted(behind).await;
    assert!(is_readable(&client).await && behind.is_valid());
}

/// No time passes until it is granted: it is woken, and does not ask again by a timer.
#[tokio::test(start_paused = true)]
async fn a_writer_is_woken_by_the_last_reader_of_any_client() {
    let store = MemoryBackend::new();
    let [here, there] = [store.clone(), store].map(LockProvider::new);
    for client in [&here, &there] {
        let (one, other) = (read(&here).await, read(&there).await);
        let writer = start(client, s(60)).await;
        one.release().await.unwrap();
        sleep(s(1)).await;
        assert!(!writer.is_finished(), "one reads");
        other.release().await.unwrap();
        let (elapsed, writer) = timed(writer).await;
        took(elapsed, ms(0));
        writer.unwrap().unwrap().release().await.unwrap();
    }
}

/// As for writers: what is asked for a caller that leaves is of use for the next.
#[tokio::test(start_paused = true)]
async fn a_grant_whose_reader_has_left_goes_to_a_reader() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::DoneThenLate(ms(40))]);
    let first = start_reader(&client).await;
    let second = start_reader(&client).await;
    first.abort();
    let second = granted(second).await;
    assert!(second.is_valid());
    assert_eq!((scripted.tried(&name()), scripted.held()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_grant_whose_caller_has_left_goes_to_no_caller_of_the_other_mode() {
    for is_reader in [true, false] {
        let scripted = ScriptedBackend::new();
        let client = scripted.client();
        scripted.tries([Play::DoneThenLate(ms(40))]);
        let (first, second) = match is_reader {
            true => (start_reader(&client).await, start(&client, s(60)).await),
            false => (start(&client, s(60)).await, start_reader(&client).await),
        };
        first.abort();
        let second = granted(second).await;
        assert!(second.is_valid());
        assert_eq!(
            scripted.tried(&name()),
            2,
            "it was given back, and asked for"
        );
        assert_eq!(is_readable(&client).await, !is_reader);
        drop(second);
        yield_now().await;
        assert_eq!(scripted.held(), 0);
    }
}

/// The caller that it was handed to leaves as well, and the next is of the other mode.
#[tokio::test(start_paused = true)]
async fn a_grant_that_is_left_behind_is_given_back_by_a_caller_of_the_other_mode() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.tries([Play::DoneThenLate(ms(40))]);
    let first = start_reader(&client).await;
    let mut second = reader(&client).acquire_owned(s(60));
    assert!(poll_once(&mut second).is_none());
    let writer = start(&client, s(60)).await;
    first.abort();
    // It was handed to the second, which is not polled, and leaves.
    sleep(ms(50)).await;
    drop(second);
    let writer = granted(writer).await;
    assert!(writer.is_valid() && !is_readable(&client).await);
    assert_eq!((scripted.tried(&name()), scripted.held()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_writer_hands_over_to_a_writer_and_releases_for_a_reader() {
    let scripted = ScriptedBackend::new();
    scripted.hand_over();
    let client = scripted.client();
    let writer = take(&client).await;
    let (next, behind) = (start(&client, s(60)).await, start_reader(&client).await);
    writer.release().await.unwrap();
    let next = granted(next).await;
    assert_eq!(scripted.tried(&name()), 1, "it was handed over");
    next.release().await.unwrap();
    let behind = granted(behind).await;
    assert_eq!(
        scripted.tried(&name()),
        2,
        "the store knows that it is a reader"
    );
    assert!(is_readable(&client).await);
    // A reader hands nothing over, also not to a writer that is next.
    let last = start(&client, s(60)).await;
    yield_now().await;
    let before = scripted.tried(&name());
    behind.release().await.unwrap();
    assert!(granted(last).await.is_valid());
    assert_eq!(scripted.tried(&name()), before + 1, "it asked for itself");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_lost_leaves_the_others() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let (one, other) = (read(&client).await, read(&client).await);
    let writer = start(&client, s(60)).await;
    scripted.lose(&name(), LossReason::Revoked);
    assert_eq!(one.lost().await, LossReason::Revoked);
    assert!(!one.is_valid() && other.is_valid() && !writer.is_finished());
    assert_eq!(client.activity().locks()[0].readers(), 1);
    other.release().await.unwrap();
    assert!(granted(writer).await.is_valid());
    assert!(one.release().await.unwrap_err().is_lost());
}

/// Also where its guard is kept.
#[tokio::test(start_paused = true)]
async fn a_reader_beyond_its_longest_hold_lets_a_writer_in() {
    let client = LockProvider::new(MemoryBackend::new());
    let policy = LockPolicy::from(Duration::ZERO).with_max_hold(s(1));
    let kept = reader(&client).acquire(policy).await.unwrap();
    let other = read(&client).await;
    let writer = start(&client, s(60)).await;
    assert_eq!(kept.lost().await, LossReason::MaxHold);
    assert!(other.is_valid());
    other.release().await.unwrap();
    assert!(granted(writer).await.is_valid());
    assert!(!kept.is_valid());
}

#[tokio::test(start_paused = true)]
async fn what_no_reader_can_be_is_refused_before_anything_is_asked() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    let with_permits = reader(&client).permits(3);
    let refused = with_permits.acquire(s(1)).await.unwrap_err();
    assert!(refused.is_misconfigured(), "{refused}");
    assert!(refused.to_string().contains("`permits`"), "{refused}");
    let kept = LockPolicy::background_job().with_at_least(s(5));
    let refused = reader(&client).acquire(kept).await.unwrap_err();
    assert!(refused.is_misconfigured(), "{refused}");
    assert!(refused.to_string().contains("`at_least`"), "{refused}");
    assert_eq!(scripted.tried(&name()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_has_no_token_and_asks_for_none() {
    let scripted = ScriptedBackend::new();
    let client = scripted.client();
    scripted.every_token(Play::Hang);
    let guard = read(&client).await;
    let (elapsed, refused) = timed(guard.fencing_token()).await;
    took(elapsed, ms(0));
    assert!(refused.unwrap_err().is_misconfigured());
    assert!(guard.is_valid());
}

/// They are exclusive, whatever a clone of the lock is.
#[tokio::test(start_paused = true)]
async fn several_locks_wait_for_readers_of_each() {
    let client = LockProvider::new(MemoryBackend::new());
    let first = read(&client).await;
    assert!(client.claim([name()], 1).await.unwrap().is_empty());
    let all = [name(), "order:process:43".parse().unwrap()];
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.acquire_all(all, s(60)).await })
    };
    yield_now().await;
    assert!(!is_readable(&client).await, "a writer waits");
    first.release().await.unwrap();
    let guards = waiting.await.unwrap().unwrap();
    assert_eq!(guards.len(), 2);
    drop(guards);
    assert!(is_readable(&client).await);
}

/// Whose lease has ended, and whose guard was forgotten.
#[tokio::test(start_paused = true)]
async fn readers_go_on_when_a_writer_leaves_that_waited_for_a_holder_that_is_gone() {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let store = MemoryBackend::with_lease(s(3), clock);
    let [holding, writing, reading] = [(); 3].map(|()| LockProvider::new(store.clone()));
    let forgotten = take(&holding).await;
    // It waits, and its task does not run any more.
    let mut writer = writing.lock(name()).unwrap().acquire_owned(s(600));
    assert!(poll_once(&mut writer).is_none());
    let waiting = start_reader(&reading).await;
    sleep(s(4)).await;
    assert!(!forgotten.is_valid() && !waiting.is_finished());
    drop(writer);
    let (elapsed, guard) = timed(granted(waiting)).await;
    took(elapsed, Duration::ZERO);
    assert!(guard.is_valid());
}
