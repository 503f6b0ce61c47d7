//! The service of the README, over real sockets: what excludes what, in one process and across two.

use std::time::Duration;

use futures_util::future::{join_all, select};
use lock_core::LockTemplate;
use lock_tests::Lateness;
use lock_tests::orders::{Answer, Shop, assert_one_at_a_time, cases};

#[tokio::test]
async fn of_two_refunds_at_once_one_is_refused() {
    let shop = Shop::new();
    let instance = shop.open().await;
    cases::of_two_refunds_one_is_refused(&instance, &instance).await;
}

#[tokio::test]
async fn of_two_refunds_in_two_processes_one_is_refused() {
    let shop = Shop::new();
    let (here, there) = tokio::join!(shop.open(), shop.open());
    cases::of_two_refunds_one_is_refused(&here, &there).await;
}

#[tokio::test]
async fn refunds_of_different_payments_do_not_wait_for_each_other() {
    let shop = Shop::new();
    let (here, there) = tokio::join!(shop.open(), shop.open());
    let (one, other, third) = tokio::join!(
        here.post("/payments/1/refund?work_ms=500"),
        here.post("/payments/2/refund?work_ms=500"),
        there.post("/payments/3/refund?work_ms=500"),
    );
    let receipts = [one.receipt(), other.receipt(), third.receipt()];
    let last_start = receipts.iter().map(|receipt| receipt.started_ns).max();
    let first_finish = receipts.iter().map(|receipt| receipt.finished_ns).min();
    assert!(
        last_start < first_finish,
        "they were worked on one after the other: {receipts:#?}"
    );
}

#[tokio::test]
async fn two_hundred_requests_for_one_order_are_served_one_at_a_time() {
    let shop = Shop::new();
    let instance = shop.open().await;
    let answers = join_all((0..200).map(|_| instance.post("/orders/1/process?work_ms=5"))).await;
    let receipts: Vec<_> = answers.iter().map(Answer::receipt).collect();
    assert_one_at_a_time(&receipts);
    assert!(
        receipts
            .iter()
            .all(|receipt| receipt.lock == "order:process:1")
    );
    println!(
        "the slowest of 200 took {:?}",
        answers.iter().map(|answer| answer.took).max()
    );

    let order: serde_json::Value =
        serde_json::from_str(&instance.get("/orders/1").await.body).expect("an order is JSON");
    let last = receipts
        .iter()
        .map(|receipt| receipt.token)
        .max()
        .expect("there are 200");
    assert_eq!(order["status"], "processed");
    assert_eq!(order["token"], last.to_string());
}

#[tokio::test]
async fn two_processes_share_a_hundred_requests_for_one_order() {
    let shop = Shop::new();
    let (here, there) = tokio::join!(shop.open(), shop.open());
    cases::a_hundred_requests_for_one_order_are_shared(&here, &there).await;
}

#[tokio::test]
async fn an_order_that_is_worked_on_for_longer_than_the_wait_is_refused() {
    let shop = Shop::new();
    let (here, there) = tokio::join!(shop.open(), shop.open());
    let slow = here.begin_post("/orders/1/process?work_ms=60000", "").await;
    shop.until_held(&"order:process:1".parse().unwrap()).await;
    let late = Lateness::of(Duration::from_secs(5));
    let (local, remote) = tokio::join!(
        here.post("/orders/1/process?work_ms=0"),
        there.post("/orders/1/process?work_ms=0"),
    );
    late.at_most(Duration::from_millis(500)).await;
    for answer in [local, remote] {
        let problem = answer.conflict();
        assert_eq!(problem["reason"], "lock-wait-timeout");
        assert_eq!(problem["lock"], "order:process:<id>", "{problem:#}");
        assert!(answer.took >= Duration::from_secs(5), "{answer:#?}");
    }
    drop(slow);
}

#[tokio::test]
async fn transfers_in_opposite_directions_do_not_deadlock() {
    let shop = Shop::new();
    let (here, there) = tokio::join!(shop.open(), shop.open());
    let answers = join_all((0..40).map(|n| {
        let instance = if n % 4 < 2 { &here } else { &there };
        let (from, to) = if n % 2 == 0 {
            ("alice", "bob")
        } else {
            ("bob", "alice")
        };
        instance.transfer(from, to, 5)
    }))
    .await;
    let receipts: Vec<_> = answers.iter().map(Answer::receipt).collect();
    assert_one_at_a_time(&receipts);
}

#[tokio::test]
async fn a_transfer_locks_both_accounts() {
    let shop = Shop::new();
    let (here, there) = tokio::join!(shop.open(), shop.open());
    let (first, second, third) = tokio::join!(
        here.transfer("alice", "bob", 200),
        there.transfer("bob", "carol", 200),
        here.transfer("alice", "dave", 200),
    );
    let [first, second, third] = [first.receipt(), second.receipt(), third.receipt()];
    assert_one_at_a_time(&[first.clone(), second]);
    assert_one_at_a_time(&[first, third]);
}

#[tokio::test]
async fn a_transfer_to_the_same_account_does_not_wait_for_itself() {
    let shop = Shop::new();
    let instance = shop.open().await;
    let receipt = instance.transfer("alice", "alice", 0).await.receipt();
    assert_eq!(receipt.lock, "account:transfer:alice");
}

#[tokio::test]
async fn logins_of_one_user_wait_for_each_other_and_the_address_is_shown_nowhere() {
    let shop = Shop::new();
    let (here, there) = tokio::join!(shop.open(), shop.open());
    // Two spellings of one address.
    let (path, same) = (
        "/users/zoe@example.org/login?work_ms=200",
        "/users/Zoe@Example.org/login?work_ms=200",
    );
    let (one, other) = tokio::join!(here.post(path), there.post(same));
    let receipts = [one.receipt(), other.receipt()];
    assert_one_at_a_time(&receipts);
    for receipt in &receipts {
        assert_eq!(receipt.lock, "user:login:<email:hashed>");
    }
    for line in here.printed().iter().chain(&there.printed()) {
        assert!(!line.to_lowercase().contains("zoe"), "{line}");
    }
}

#[tokio::test]
async fn the_secret_of_the_fleet_is_part_of_a_hashed_name() {
    let template: LockTemplate = "user:login:<email:hashed>".parse().unwrap();
    // As a process without the secret makes it.
    let plain = template.fill([("email", "zoe@example.org")]).unwrap();
    let path = "/users/zoe@example.org/login?work_ms=60000";

    let shop = Shop::new();
    let without = shop.open_with(&[("LOCK_NAME_SECRET", "")]).await;
    let _working = without.begin_post(path, "").await;
    shop.until_held(&plain).await;

    let shop = Shop::new();
    let with = shop
        .open_with(&[("LOCK_NAME_SECRET", "of-the-fleet")])
        .await;
    // Of two that log in the first to be answered is the one that waited: the other has the lock.
    let logins = (Box::pin(with.post(path)), Box::pin(with.post(path)));
    let (answer, _working) = select(logins.0, logins.1).await.factor_first();
    assert_eq!(answer.conflict()["reason"], "lock-wait-timeout");
    let lock = shop.locks().lock(plain).unwrap();
    assert!(lock.try_acquire(Duration::ZERO).await.unwrap().is_some());
}

#[tokio::test]
async fn what_cannot_be_a_name_is_a_bad_request() {
    let shop = Shop::new();
    let instance = shop.open().await;
    let empty = instance.transfer("", "bob", 0).await;
    assert_eq!(empty.problem(400)["reason"], "lock-name-invalid");
    // Bytes that are no text, to the layer.
    let not_text = instance.post("/orders/%FF/process?work_ms=0").await;
    assert_eq!(not_text.problem(400)["reason"], "lock-name-invalid");
    // And what looks dangerous but is a value like any other.
    for id in [
        "%00",
        "a%3Ab",
        "..%2F..%2Fetc",
        "%F0%9F%92%A5",
        &"x".repeat(5_000),
    ] {
        let receipt = instance
            .post(&format!("/orders/{id}/process?work_ms=0"))
            .await
            .receipt();
        assert!(receipt.lock.len() <= 100, "{receipt:?}");
    }
}
