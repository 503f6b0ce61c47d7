//! One suite for every store.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use lock_idempotency::{
    Fingerprint, IdempotencyStore, MemoryStore, PostgresStore, Record, RecordKey, RedisStore,
};
use lock_tests::eventually;
use lock_tests::servers::{PostgresServer, RedisServer};

const LONG: Duration = Duration::from_secs(24 * 60 * 60);

fn record(number: u8) -> Record {
    let body: Vec<u8> = (0..=255)
        .cycle()
        .skip(usize::from(number))
        .take(64 * 1024)
        .collect();
    let response = axum::http::Response::builder()
        .status(201)
        .header("location", format!("/payments/{number}"))
        .header("link", "</a>; rel=\"x'y\"")
        .header("link", "</b>")
        .body(Bytes::from(body))
        .unwrap();
    Record::new(Fingerprint::from_bytes([number; 32]), response)
}

fn key(key: &str) -> RecordKey {
    RecordKey::new("ann", "/payments", key)
}

async fn a_record_is_found_as_it_was_stored(store: impl IdempotencyStore) {
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    assert!(store.put(&key("a"), &record(1), LONG).await.unwrap());
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(record(1)));
    assert_eq!(store.get(&key("b")).await.unwrap(), None);
    // None of a text that SQL or Redis would read, but of a hash.
    let odd = RecordKey::new("'; DROP TABLE x; --\0", "\r\n", "\u{1f600}");
    assert!(store.put(&odd, &record(2), Duration::MAX).await.unwrap());
    assert_eq!(store.get(&odd).await.unwrap(), Some(record(2)));
}

async fn the_first_record_stays(store: impl IdempotencyStore) {
    assert!(store.put(&key("a"), &record(1), LONG).await.unwrap());
    assert!(!store.put(&key("a"), &record(2), LONG).await.unwrap());
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(record(1)));
}

async fn of_many_at_the_same_time_one_stays(store: impl IdempotencyStore) {
    let (store, key) = (&store, &key("a"));
    let puts = (0..16).map(|number| async move {
        store
            .put(key, &record(number), LONG)
            .await
            .unwrap()
            .then_some(number)
    });
    let stored: Vec<u8> = join_all(puts).await.into_iter().flatten().collect();
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert_eq!(store.get(key).await.unwrap(), Some(record(stored[0])));
}

async fn a_record_ends_with_its_lifetime_and_makes_room(store: impl IdempotencyStore) {
    let (store, key) = (&store, &key("a"));
    assert!(
        store
            .put(key, &record(1), Duration::from_millis(200))
            .await
            .unwrap()
    );
    eventually("it has ended", || async {
        store.get(key).await.unwrap().is_none()
    })
    .await;
    assert!(store.put(key, &record(2), LONG).await.unwrap());
    assert_eq!(store.get(key).await.unwrap(), Some(record(2)));
    assert!(
        store
            .put(&RecordKey::new("", "", ""), &record(3), Duration::ZERO)
            .await
            .unwrap()
    );
}

macro_rules! suite {
    ($name:ident, $server:ident => $start:expr, $store:expr) => {
        mod $name {
            use super::*;

            suite!(@ $server => $start, $store;
                a_record_is_found_as_it_was_stored,
                the_first_record_stays,
                of_many_at_the_same_time_one_stays,
                a_record_ends_with_its_lifetime_and_makes_room,
            );
        }
    };
    (@ $server:ident => $start:expr, $store:expr; $($case:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $case() {
            let $server = $start;
            super::$case($store).await;
        }
    )*};
}

suite!(memory, _server => (), MemoryStore::new());
suite!(postgres, server => PostgresServer::start().await, PostgresStore::connect(&server.url()).await.unwrap());
suite!(redis, server => RedisServer::start().await, RedisStore::connect(&server.url()).await.unwrap());
