//! Locks that go from task to task in one client, without their store where it lets them.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use lock_core::{Acquire, LockName, LockPolicy, LockProvider, LossReason};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use super::crowding::Crowding;
use super::{PATIENCE, take, wait_for};
use crate::{Harness, abandon};

/// Longer than a case lasts: whatever is released is handed over while a task waits for it.
const FOR_EVER: Duration = Duration::from_secs(600);

/// A client that hands over without an end.
async fn client(harness: &Harness) -> LockProvider {
    harness.client_that_hands_over(FOR_EVER).await
}

/// Calls an acquire, which waits in line behind those that were called before.
async fn in_line(client: &LockProvider, name: &LockName, policy: LockPolicy) -> Acquire {
    let mut acquire = client.lock(name).unwrap().acquire_owned(policy);
    let waits = poll_fn(|cx| Poll::Ready(Pin::new(&mut acquire).poll(cx).is_pending())).await;
    assert!(waits, "the lock is held");
    acquire
}

fn patient() -> LockPolicy {
    LockPolicy::from(PATIENCE)
}

/// Each holder's token is greater than those of all before it, whichever asks for one.
pub async fn tokens_grow_from_holder_to_holder_in_order(harness: Harness) {
    let (here, there, name) = (
        client(&harness).await,
        harness.client().await,
        harness.name(),
    );
    let guard = take(&here, &name).await;
    let tokens = Arc::new(Mutex::new(vec![(0, guard.fencing_token().await.unwrap())]));
    let mut tasks = JoinSet::new();
    for number in 1..=60 {
        let (acquire, tokens) = (in_line(&here, &name, patient()).await, Arc::clone(&tokens));
        tasks.spawn(async move {
            let guard = acquire.await.unwrap();
            // Not every holder wants one.
            if number % 3 != 0 {
                let token = guard.fencing_token().await.unwrap();
                assert_eq!(guard.fencing_token().await.unwrap(), token);
                tokens.lock().unwrap().push((number, token));
            }
            guard.release().await.unwrap();
        });
    }
    guard.release().await.unwrap();
    tasks.join_all().await;
    let last = wait_for(&there, &name).await.fencing_token().await.unwrap();
    let mut tokens = tokens.lock().unwrap();
    tokens.push((61, last));
    assert!(
        tokens.is_sorted_by(|(one, of_one), (next, of_next)| one < next && of_one < of_next),
        "{tokens:?}"
    );
}

/// What is left of the holder before has no part in the lock any more.
pub async fn a_hold_is_over_before_the_next_one_is_valid(harness: Harness) {
    let (here, name) = (client(&harness).await, harness.name());
    let before = take(&here, &name).await.share();
    let mut lost = before.lost();
    let acquire = in_line(&here, &name, patient()).await;
    before.take().unwrap().release().await.unwrap();
    let guard = acquire.await.unwrap();
    assert!(guard.is_valid() && !before.is_valid() && before.check().is_err());
    assert!(before.fencing_token().await.unwrap_err().is_lost());
    // It was released: nothing is lost, also when the next one is.
    harness.store.lose(&name).await;
    guard.lost().await;
    let is_lost = poll_fn(|cx| Poll::Ready(Pin::new(&mut lost).poll(cx).is_ready())).await;
    assert!(!is_lost, "a release fires no loss");
}

/// A loss is that of the holder who is there, and the next one asks the store.
pub async fn a_loss_between_hand_overs_ends_one_hold(harness: Harness) {
    let (here, name) = (client(&harness).await, harness.name());
    let first = take(&here, &name).await;
    let token = first.fencing_token().await.unwrap();
    let second = in_line(&here, &name, patient()).await;
    let third = tokio::spawn(in_line(&here, &name, patient()).await);
    first.release().await.unwrap();
    let second = second.await.unwrap();
    harness.store.lose(&name).await;
    second.lost().await;
    assert!(!second.is_valid());
    assert!(second.fencing_token().await.unwrap_err().is_lost());
    assert!(second.release().await.unwrap_err().is_lost());
    let third = third.await.unwrap().unwrap();
    assert!(third.is_valid());
    assert!(third.fencing_token().await.unwrap() > token);
    third.release().await.unwrap();
}

/// The time of a holder begins with its own hold.
pub async fn each_holder_has_a_time_of_its_own_to_hold(harness: Harness) {
    let (here, there, name) = (
        client(&harness).await,
        harness.client().await,
        harness.name(),
    );
    let held_for = Duration::from_millis(300);
    let first = take(&here, &name).await;
    let short = in_line(&here, &name, patient().with_max_hold(held_for)).await;
    let long = in_line(&here, &name, patient()).await;
    sleep(2 * held_for).await;
    first.release().await.unwrap();
    let short = short.await.unwrap();
    assert!(
        short.is_valid() || short.held_for() >= held_for,
        "the hold before is not counted"
    );
    let long = tokio::spawn(long);
    assert_eq!(short.lost().await, LossReason::MaxHold);
    let long = long.await.unwrap().unwrap();
    sleep(2 * held_for).await;
    assert!(long.is_valid(), "it has no end");
    drop((short, long));
    wait_for(&there, &name).await.release().await.unwrap();
}

/// Callers that leave when they are called pass the lock on, or it is free.
pub async fn a_caller_that_leaves_at_a_hand_over_passes_it_on(harness: Harness) {
    let (here, there, name) = (
        client(&harness).await,
        harness.client().await,
        harness.name(),
    );
    for round in 0..60_u32 {
        let guard = wait_for(&here, &name).await;
        let leaves = tokio::spawn(abandon(
            in_line(&here, &name, patient()).await,
            1 + round % 3,
        ));
        let stays = if round % 2 == 0 {
            Some(tokio::spawn(in_line(&here, &name, patient()).await))
        } else {
            None
        };
        for _ in 0..round % 4 {
            yield_now().await;
        }
        if round % 5 == 0 {
            leaves.abort();
        }
        drop(guard);
        drop(leaves.await);
        if let Some(stays) = stays {
            stays.await.unwrap().unwrap().release().await.unwrap();
        }
    }
    wait_for(&there, &name).await.release().await.unwrap();
}

/// A lock that is handed to a task which is not polled is not kept from others for longer.
pub async fn what_a_sleeping_task_was_handed_is_released_in_time(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    let guard = take(&here, &name).await;
    let asleep = in_line(&here, &name, patient()).await;
    drop(guard);
    wait_for(&there, &name).await.release().await.unwrap();
    // Awake, it asks for itself.
    asleep.await.unwrap().release().await.unwrap();
}

/// A client whose tasks hold the lock for a moment each, one after the other, lets others have it.
pub async fn tasks_that_hand_over_let_another_client_go_first(harness: Harness) {
    let (busy, other, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    let crowd = Crowding::begin(&busy, &name, Duration::from_millis(1));
    let overtaken = crowd.overtakes(&other, &name, 50).await;
    crowd.end().await;
    // In 10 ms about 10 of these holds have an end.
    assert!(
        overtaken <= 45 * 20,
        "overtaken {overtaken} times in 45 rounds"
    );
}

/// The end of a client amid hand-overs leaves nothing behind.
pub async fn a_shutdown_amid_hand_overs_frees_the_lock(harness: Harness) {
    let (here, there, name) = (
        client(&harness).await,
        harness.client().await,
        harness.name(),
    );
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let lock = here.lock(&name).unwrap();
        tasks.spawn(async move {
            loop {
                match lock.acquire(PATIENCE).await {
                    // Dropped, which is not awaited.
                    Ok(guard) => drop(guard),
                    Err(error) => break assert!(error.is_closed(), "{error}"),
                }
                yield_now().await;
            }
        });
    }
    sleep(Duration::from_millis(50)).await;
    timeout(PATIENCE, here.shutdown(PATIENCE)).await.unwrap();
    tasks.join_all().await;
    wait_for(&there, &name).await.release().await.unwrap();
}
