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

/// A refund that is sent again with its key is made once, through either instance; that of another caller with
/// the key is another refund. So four of payment 7 are made: two of ann, one of bob, one without a key.
pub async fn a_refund_with_a_key_is_made_once(here: &Instance, there: &Instance) {
    let path = "/payments/7/refund?work_ms=500";
    let (one, other) = tokio::join!(
        here.post_once(path, "ann", "a"),
        there.post_once(path, "ann", "a")
    );
    let (refused, made): (Vec<_>, Vec<_>) = [one, other]
        .into_iter()
        .partition(|answer| answer.status == 409);
    assert_eq!(
        (refused.len(), made.len()),
        (1, 1),
        "{refused:#?} {made:#?}"
    );
    assert_eq!(refused[0].conflict()["reason"], "idempotency-key-in-use");
    let first = made[0].receipt();
    for instance in [here, there, here] {
        let again = instance.post_once(path, "ann", "a").await;
        assert!(again.is_replay, "{again:#?}");
        assert_eq!(again.receipt(), first);
    }
    // Another request under the key.
    for other in [
        "/payments/8/refund?work_ms=500",
        "/payments/7/refund?work_ms=0",
    ] {
        let answer = there.post_once(other, "ann", "a").await;
        assert_eq!(answer.problem(422)["reason"], "idempotency-key-reused");
    }
    let quick = "/payments/7/refund?work_ms=0";
    for (caller, key) in [("ann", "b"), ("bob", "a")] {
        let another = here.post_once(quick, caller, key).await;
        assert!(!another.is_replay, "{another:#?}");
        assert!(another.receipt().token > first.token);
        assert!(there.post_once(quick, caller, key).await.is_replay);
    }
    // Without a key each is made.
    let _ = here.post(quick).await.receipt();
}
