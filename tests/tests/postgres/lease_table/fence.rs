//! A transaction that is fenced by the row of its lock.

use lock_core::postgres::lease_table::{Released, fence};
use sqlx::{Connection, PgConnection};

use super::{Bed, hold};

/// The holder renews and releases meanwhile, and its lease can end: no other is granted the lock before the
/// transaction has ended.
#[tokio::test]
async fn the_next_holder_waits_for_the_end_of_a_fenced_transaction() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let mut work = PgConnection::connect(&bed.bouncer.url()).await.unwrap();
    for is_released in [false, true] {
        let (held, next) = (hold(1), hold(1));
        let token = client.take(held).await;
        let mut tx = work.begin().await.unwrap();
        fence(&bed.table, &mut tx, held.key, token).await.unwrap();
        assert!(client.renews(held).await, "its lease goes on");
        if is_released {
            assert_eq!(client.release(held).await, Released::Free);
        } else {
            bed.expire(held.key).await;
        }
        assert!(client.is_refused(next).await);
        tx.commit().await.unwrap();
        assert!(client.take(next).await > token);
        client.release(next).await;
    }
}

#[tokio::test]
async fn a_transaction_is_not_fenced_by_a_lock_that_is_held_no_more() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    let token = client.take(held).await;
    let issued = client.issue(held).await.unwrap();
    let mut tx = bed.pool.begin().await.unwrap();
    let refused = fence(&bed.table, &mut tx, held.key, token).await;
    assert!(refused.unwrap_err().is_lost(), "it is a former holder's");
    fence(&bed.table, &mut tx, held.key, issued).await.unwrap();
    tx.commit().await.unwrap();
    bed.expire(held.key).await;
    let mut tx = bed.pool.begin().await.unwrap();
    let refused = fence(&bed.table, &mut tx, held.key, issued).await;
    assert!(refused.unwrap_err().is_lost(), "its lease has ended");
    let next = hold(1);
    client.take(next).await;
    let refused = fence(&bed.table, &mut tx, held.key, issued).await;
    assert!(refused.unwrap_err().is_lost(), "another has it");
}
