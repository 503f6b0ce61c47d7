//! Waits and lists that are extreme.

use std::time::Duration;

use lock_core::{LockName, LockProvider};
use lock_tests::{Lateness, PostgresStore, Store, is_held};

use crate::support::{BOUND, PATIENCE, acquire, numbered, order, take};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shortest_and_the_longest_waits_behave() {
    let store = PostgresStore::open().await;
    let (client, other) = (store.client().await, store.client().await);
    for wait in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        acquire(&client, order(), wait)
            .await
            .release()
            .await
            .unwrap();
    }
    let guard = take(&client, order()).await;
    for wait in [Duration::ZERO, Duration::from_nanos(1)] {
        for client in [&client, &other] {
            let late = Lateness::of(wait);
            let tried = client.lock(order()).unwrap().try_acquire(wait).await;
            late.at_most(BOUND).await;
            assert!(tried.unwrap().is_none());
        }
    }
    let lock = other.lock(order()).unwrap();
    let waits = tokio::spawn(async move { lock.acquire(Duration::MAX).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waits.is_finished());
    guard.release().await.unwrap();
    drop(waits.await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_no_names_and_of_ten_thousand_behave() {
    let store = PostgresStore::open().await;
    // So many take a busy machine longer than a client waits for an answer, unless it is configured otherwise.
    let connect = async || {
        let client = LockProvider::builder(store.long_lived().await);
        client.response_timeout(PATIENCE).build()
    };
    let (client, other) = (connect().await, connect().await);
    let none: [LockName; 0] = [];
    let nothing = client.acquire_all(none.clone(), Duration::ZERO).await;
    assert!(nothing.unwrap_err().is_invalid_name());
    assert!(client.claim(none, 10).await.unwrap().is_empty());
    assert!(client.claim([order()], 0).await.unwrap().is_empty());
    assert!(!is_held(&other, order()).await);

    let names: Vec<LockName> = (0..10_000).map(numbered).collect();
    // One after the other, within one wait.
    let all = client
        .acquire_all(names.clone(), PATIENCE * 4)
        .await
        .unwrap();
    assert!(all.is_valid());
    assert!(other.claim(names.clone(), 10_000).await.unwrap().is_empty());
    all.release().await.unwrap();
    let claimed = other.claim(names, 10_000).await.unwrap();
    assert_eq!(claimed.len(), 10_000);
}
