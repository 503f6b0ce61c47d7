//! What the service does wherever its locks are: for two instances that share them, or one.

use std::time::Duration;

use futures_util::future::{join_all, select};

use super::{Answer, Instance, assert_one_at_a_time};
use crate::Lateness;

/// Of two refunds that were sent together, one is made and the other is refused, immediately.
pub async fn of_two_refunds_one_is_refused(here: &Instance, there: &Instance) {
    let path = "/payments/7/refund?work_ms=3000";
    let (one, other) = (Box::pin(here.post(path)), Box::pin(there.post(path)));
    let late = Lateness::of(Duration::ZERO);
    // The one that is refused is answered while the other is at work.
    let (refused, made) = select(one, other).await.factor_first();
    assert_eq!(refused.conflict()["reason"], "refund-in-progress");
    late.at_most(Duration::from_millis(100)).await;
    assert_eq!(made.await.receipt().lock, "payment:refund:7");
    // Once it is made the lock is free again, immediately.
    for instance in [there, here] {
        let _ = instance
            .post("/payments/7/refund?work_ms=0")
            .await
            .receipt();
    }
}

/// A hundred requests for one order are worked on one at a time, and neither instance is preferred.
pub async fn a_hundred_requests_for_one_order_are_shared(here: &Instance, there: &Instance) {
    let answers = join_all((0..100).map(|number| {
        let instance = if number % 2 == 0 { here } else { there };
        instance.post_in_a_crowd("/orders/1/process?work_ms=5")
    }));
    let answers = answers.await;
    let receipts: Vec<_> = answers.iter().map(Answer::receipt).collect();
    assert_one_at_a_time(&receipts);
    for instance in [here, there] {
        let share = receipts
            .iter()
            .filter(|receipt| receipt.instance == instance.id());
        assert_eq!(share.count(), 50);
    }
}
