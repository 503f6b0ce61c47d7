//! Requests with one key at the same time, and clients that leave.

use std::time::Duration;

use futures_util::future::join_all;
use lock_core::LockProvider;
use lock_core::memory::MemoryBackend;
use lock_idempotency::MemoryStore;
use lock_tests::eventually;

use crate::support::{Answer, KEY, PATIENCE, Service, layer, layer_over};

#[tokio::test]
async fn a_second_request_meanwhile_is_409_and_later_a_replay() {
    let service = Service::start(layer()).await;
    let first = tokio::spawn(Answer::of(service.payment().header("x-wait", "1")));
    service.begun().await;
    let second = Answer::of(service.payment()).await;
    assert_eq!(
        (second.status, &*second.reason()),
        (409, "idempotency-key-in-use")
    );
    let retry: u64 = second.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=3).contains(&retry));
    service.shop.go.add_permits(1);
    assert_eq!(first.await.unwrap().status, 201);
    // The lock was released before the answer was sent.
    assert!(Answer::of(service.payment()).await.is_replay());
    assert_eq!(service.runs(), 1);
}

#[tokio::test]
async fn another_caller_with_the_key_does_not_wait() {
    let service = Service::start(layer()).await;
    let first = tokio::spawn(Answer::of(service.payment().header("x-wait", "1")));
    service.begun().await;
    let other = Answer::of(service.of("bob", KEY).body("500 cents")).await;
    assert_eq!((other.status, other.is_replay()), (201, false));
    service.shop.go.add_permits(1);
    assert_ne!(
        first.await.unwrap().headers["location"],
        other.headers["location"]
    );
}

#[tokio::test]
async fn a_request_that_waits_has_the_answer_of_the_first() {
    let service = Service::start(layer().policy(PATIENCE)).await;
    let first = tokio::spawn(Answer::of(service.payment().header("x-wait", "1")));
    service.begun().await;
    let waiting: Vec<_> = (0..8)
        .map(|_| tokio::spawn(Answer::of(service.payment())))
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(waiting.iter().all(|request| !request.is_finished()));
    service.shop.go.add_permits(1);
    let place = first.await.unwrap().headers["location"].clone();
    for answer in join_all(waiting).await {
        let answer = answer.unwrap();
        assert_eq!(
            (answer.is_replay(), &answer.headers["location"]),
            (true, &place)
        );
    }
    assert_eq!(service.runs(), 1);
}

#[tokio::test]
async fn of_fifty_requests_at_the_same_time_one_runs() {
    let store = MemoryStore::new();
    let locks = LockProvider::new(MemoryBackend::new());
    // Two instances of one service.
    let here = Service::start(layer_over(locks.clone(), store.clone())).await;
    let there = Service::start(layer_over(locks, store)).await;
    let requests = (0..50).map(|at| Answer::of(if at % 2 == 0 { &here } else { &there }.payment()));
    let answers = join_all(requests).await;
    assert_eq!(here.runs() + there.runs(), 1);
    let ran = answers
        .iter()
        .filter(|answer| answer.status == 201 && !answer.is_replay());
    assert_eq!(ran.count(), 1);
    for answer in &answers {
        assert!(
            answer.status == 409
                || answer.status == 201 && answer.headers["location"] == "/payments/1"
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_finds_its_answer_later() {
    let service = Service::start(layer()).await;
    let first = tokio::spawn(Answer::of(service.payment().header("x-wait", "1")));
    service.begun().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    // The handler runs on, and the key with it.
    assert_eq!(Answer::of(service.payment()).await.status, 409);
    service.shop.go.add_permits(1);
    eventually("it is stored", || async {
        Answer::of(service.payment()).await.is_replay()
    })
    .await;
    assert_eq!(service.runs(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_runs_nothing() {
    let service = Service::start(layer().policy(PATIENCE)).await;
    let first = tokio::spawn(Answer::of(
        service
            .payment()
            .header("x-wait", "1")
            .header("x-status", "503"),
    ));
    service.begun().await;
    let waiting = tokio::spawn(Answer::of(service.payment()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    waiting.abort();
    let _ = waiting.await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    service.shop.go.add_permits(1);
    assert_eq!(first.await.unwrap().status, 503);
    let last = Answer::of(service.payment()).await;
    assert_eq!(
        (last.status, last.is_replay(), service.runs()),
        (201, false, 2)
    );
}
