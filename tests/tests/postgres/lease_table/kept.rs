//! Locks that the server keeps for some time, also after their release.

use std::time::{Duration, SystemTime};

use lock_core::postgres::lease_table::{Acquired, Ask, Released, fence};
use lock_core::{LockPolicy, LockProvider};
use lock_tests::{LeaseTableStore, Store};

use super::{Bed, Client, LEASE, hold, kept, number};

const LONG: Duration = Duration::from_secs(100);
const SHORT: Duration = Duration::from_secs(10);

/// What another client learns of the lock: in how many seconds it opens.
async fn left(client: &mut Client) -> f64 {
    match client.acquire(hold(1)).await {
        Acquired::Held(Some(left)) => Duration::from_millis(left.unsigned_abs()).as_secs_f64(),
        other => panic!("{other:?}"),
    }
}

fn is_about(left: f64, expected: Duration) -> bool {
    left <= expected.as_secs_f64() + 0.01 && left > expected.as_secs_f64() - 5.0
}

#[tokio::test]
async fn a_released_row_that_is_kept_has_no_owner_until_its_time() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    let token = client.take(held).await;
    assert_eq!(client.release(kept(held, SHORT)).await, Released::Free);
    let seconds = left(&mut client).await;
    assert!(is_about(seconds, SHORT), "{seconds}");
    // It is held no more, and its release is done once.
    assert!(!client.renews(held).await && client.issue(held).await.is_none());
    assert_eq!(client.release(kept(held, LONG)).await, Released::Missing);
    let mut tx = bed.pool.begin().await.unwrap();
    let refused = fence(&bed.table, &mut tx, held.key, token).await;
    assert!(refused.unwrap_err().is_lost());
    tx.rollback().await.unwrap();
    let seconds = left(&mut client).await;
    assert!(is_about(seconds, SHORT), "{seconds}");

    let asked = client.table.who_holds(number(), &[held.key]);
    let answer = client.send(asked).await;
    let until = answer.holder(0).unwrap().until().unwrap();
    let until = until.duration_since(SystemTime::now()).unwrap();
    assert!(is_about(until.as_secs_f64(), SHORT), "{until:?}");
    bed.expire(held.key).await;
    assert!(client.take(hold(1)).await > token);
    let asked = client.table.who_holds(number(), &[held.key]);
    assert_eq!(client.send(asked).await.holder(0).unwrap().until(), None);
}

/// Also where the holder ends without a release.
#[tokio::test]
async fn a_row_is_held_as_long_as_it_is_to_be_kept() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    client.take(kept(held, LONG)).await;
    let seconds = left(&mut client).await;
    assert!(is_about(seconds, LONG), "{seconds}");
    assert!(client.renews(kept(held, LONG / 2)).await);
    let seconds = left(&mut client).await;
    assert!(is_about(seconds, LONG / 2), "{seconds}");
    // Less than a lease: as any other.
    for renewed in [kept(held, SHORT), held] {
        assert!(client.renews(renewed).await);
        let seconds = left(&mut client).await;
        assert!(is_about(seconds, LEASE), "{seconds}");
    }
    assert_eq!(client.release(held).await, Released::Free);
    client.take(kept(hold(1), SHORT)).await;
    let seconds = left(&mut client).await;
    assert!(is_about(seconds, LEASE), "{seconds}");
}

#[tokio::test]
async fn a_row_whose_lease_has_ended_is_not_kept() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    client.take(held).await;
    bed.expire(held.key).await;
    assert_eq!(client.release(kept(held, LONG)).await, Released::Missing);
    client.take(hold(1)).await;
}

/// The clock of the server went back meanwhile.
#[tokio::test]
async fn a_kept_row_that_ends_too_late_is_brought_back_to_its_time() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    client.take(held).await;
    client.release(kept(held, LONG)).await;
    let key = held.key;
    bed.write(&format!(
        "UPDATE leases SET expires = expires + interval '1 hour' WHERE key = '{key}'"
    ))
    .await;
    assert!(client.is_refused(hold(1)).await);
    let seconds = left(&mut client).await;
    assert!(is_about(seconds, LONG), "{seconds}");
}

/// A release and an acquire of one lock in one request: the first is kept.
#[tokio::test]
async fn a_kept_lock_does_not_change_hands_in_one_request() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let (former, next) = (hold(1), hold(1));
    client.take(former).await;
    let ask = Ask {
        releases: &[kept(former, SHORT)],
        acquires: &[super::wish(next)],
        ..Ask::default()
    };
    let answer = client.ask(ask).await;
    assert_eq!(answer.released(0), Released::Free);
    assert!(matches!(answer.acquired(0), Acquired::Held(Some(_))));
}

/// By a process that lives: the renewals of the lease leave the time as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_do_not_shorten_the_time_of_a_kept_row() {
    let store = LeaseTableStore::open().await;
    let client = LockProvider::new(store.backend().await);
    let policy = LockPolicy::background_job().with_at_least(SHORT);
    let guard = client.acquire("order:process:42", policy).await.unwrap();
    tokio::time::sleep(LeaseTableStore::LEASE.unwrap() * 3 / 2).await;
    assert!(guard.is_valid(), "it was renewed");
    let left = "SELECT extract(epoch FROM expires - clock_timestamp())::float8 \
                FROM distributed_lock_leases WHERE name = 'order:process:42'";
    let left: f64 = sqlx::query_scalar(left)
        .fetch_one(store.pool())
        .await
        .unwrap();
    assert!(left > SHORT.as_secs_f64() / 2.0, "{left}");
}
