//! The latch under every interleaving of loom. The names begin with `model_`: they are run alone.

use std::future::poll_fn;
use std::sync::Arc;

use loom::future::block_on;
use loom::thread;

use super::{Latch, LossReason, Registration};

async fn set(latch: &Latch) -> LossReason {
    let mut registration = Registration::default();
    let reason = poll_fn(|cx| latch.poll_set(&mut registration, cx.waker())).await;
    latch.unregister(&mut registration);
    reason
}

#[test]
fn model_every_waiter_sees_the_loss() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let latch = Arc::new(Latch::new());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let latch = Arc::clone(&latch);
                thread::spawn(move || assert_eq!(block_on(set(&latch)), LossReason::Revoked))
            })
            .collect();
        latch.set(LossReason::Revoked);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn model_one_reason_wins_for_everybody() {
    loom::model(|| {
        let latch = Arc::new(Latch::new());
        let other = Arc::clone(&latch);
        let expired = thread::spawn(move || (other.set(LossReason::Expired), other.get()));
        let first = latch.set(LossReason::Shutdown);
        let seen = latch.get();
        let (other_first, other_seen) = expired.join().unwrap();
        assert!(first != other_first);
        assert_eq!(seen, other_seen);
    });
}

#[test]
fn model_a_waiter_that_leaves_does_not_take_the_wake_up_along() {
    loom::model(|| {
        let latch = Arc::new(Latch::new());
        let (leaver, setter) = (Arc::clone(&latch), Arc::clone(&latch));
        let leaver = thread::spawn(move || {
            let mut registration = Registration::default();
            let _ = leaver.poll_set(&mut registration, std::task::Waker::noop());
            leaver.unregister(&mut registration);
        });
        let setter = thread::spawn(move || setter.set(LossReason::Disconnected));
        assert_eq!(block_on(set(&latch)), LossReason::Disconnected);
        leaver.join().unwrap();
        setter.join().unwrap();
    });
}
