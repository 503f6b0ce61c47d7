//! Locks that the table keeps at least so long, also without their holder.

use std::time::{Duration, SystemTime};

use lock_core::postgres::LeaseTable;
use lock_core::postgres::lease_table::{Acquired, Ask, Hold, Released, fence};
use lock_core::{LockPolicy, LockProvider};
use lock_tests::servers::Proxy;
use lock_tests::{Lateness, LeaseTableStore, Store};
use tokio::time::{sleep, timeout};

use super::{Bed, LEASE, hold, number};
use crate::support::{BOUND, PATIENCE, ZERO, numbered, order, take};

/// Shorter than the lease.
const SHORT: Duration = Duration::from_millis(800);

/// Longer than it.
const LONG: Duration = Duration::from_secs(60);

fn kept(hold: Hold, at_least: Duration) -> Hold {
    Hold {
        at_least: Some(at_least),
        ..hold
    }
}

/// In how many milliseconds another owner could have the lock.
async fn left(client: &mut super::Client) -> i64 {
    match client.acquire(hold(1)).await {
        Acquired::Held(Some(left)) => left,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_kept_lock_has_no_owner_and_opens_in_its_time() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    let token = client.take(kept(held, SHORT)).await;
    assert_eq!(client.release(kept(held, SHORT)).await, Released::Free);
    let late = Lateness::of(SHORT);
    // The answer may have been lost.
    assert_eq!(client.release(kept(held, LONG)).await, Released::Missing);
    assert!(!client.renews(held).await && client.issue(held).await.is_none());
    let mut tx = bed.pool.begin().await.unwrap();
    let fenced = fence(&bed.table, &mut tx, held.key, token).await;
    assert!(fenced.unwrap_err().is_lost());
    let until = SystemTime::now() + SHORT;
    let asked = bed.table.who_holds(number(), &[held.key]);
    let holder = client.send(asked).await.holder(0).unwrap().clone();
    assert_eq!(holder.instance(), Some("here:1"));
    assert!(holder.until().unwrap() <= until + BOUND, "{holder:?}");
    let left = left(&mut client).await;
    assert!(u128::try_from(left).unwrap() <= SHORT.as_millis(), "{left}");
    sleep(Duration::from_millis(left.unsigned_abs())).await;
    late.at_most(BOUND).await;
    assert!(client.take(hold(1)).await > token);
}

#[tokio::test]
async fn a_lock_that_is_kept_longer_than_its_lease_lasts_so_long() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    let lease = i64::try_from(LEASE.as_millis()).unwrap();
    client.take(kept(held, LONG)).await;
    assert!(left(&mut client).await > lease);
    let renewals = &[kept(held, LONG - Duration::from_secs(20))];
    let ask = Ask {
        renewals,
        ..Ask::default()
    };
    assert!(client.ask(ask).await.is_renewed(0));
    assert!(left(&mut client).await > lease);
    // Renewed as any other once that is over.
    assert!(client.renews(held).await);
    assert!(left(&mut client).await <= lease);
}

/// Another may have done its work meanwhile.
#[tokio::test]
async fn a_lock_whose_lease_has_ended_is_not_kept() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    client.take(held).await;
    bed.expire(held.key).await;
    assert_eq!(client.release(kept(held, LONG)).await, Released::Missing);
    client.take(hold(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_answer_is_lost_keeps_the_lock_and_is_done() {
    let store = LeaseTableStore::open().await;
    let network = Proxy::to(store.pooler().address()).await;
    // With the default lease: no renewal is answered meanwhile.
    let here = LeaseTable::connect(&network.url(&store.pooler().url())).await;
    let here = LockProvider::new(here.unwrap());
    let policy = LockPolicy::background_job().with_at_least(LONG);
    let guard = here.acquire(order(), policy).await.unwrap();
    network.drop_next_reply();
    guard.release().await.unwrap();
    let holder = store.client().await.holder(order()).await.unwrap();
    assert!(holder.unwrap().until().is_some());
}

/// No caller has seen it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_that_left_was_granted_is_not_kept() {
    let store = LeaseTableStore::open().await;
    let (here, there) = (store.client().await, store.client().await);
    let mut have_left = 0;
    for round in 0..40 {
        let name = numbered(round);
        let policy = LockPolicy::background_job().with_at_least(LONG);
        let patience = Duration::from_micros(100 * u64::try_from(round).unwrap());
        if let Ok(granted) = timeout(patience, here.acquire(&name, policy)).await {
            drop(granted.unwrap());
            continue;
        }
        have_left += 1;
        let free = there.acquire(&name, LONG / 2).await.expect("it is free");
        free.release().await.unwrap();
    }
    assert!(have_left > 0, "the machine is fast");
}

/// The driver acquires for waiters, and not to keep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_keeps_its_lock_has_it_kept() {
    let store = LeaseTableStore::open().await;
    let (here, there) = (store.client().await, store.client().await);
    let guard = take(&here, order()).await;
    let waiting = {
        let there = there.clone();
        let policy = LockPolicy::background_job().with_at_least(LONG);
        tokio::spawn(async move { there.acquire(order(), policy.with_wait(PATIENCE)).await })
    };
    sleep(SHORT).await;
    guard.release().await.unwrap();
    waiting.await.unwrap().unwrap().release().await.unwrap();
    let lock = here.lock(order()).unwrap();
    assert!(lock.try_acquire(ZERO).await.unwrap().is_none());
}
