//! Steps of the clock of a server that keeps records.

use std::time::Duration;

use bytes::Bytes;
use lock_idempotency::{
    Fingerprint, IdempotencyStore, PostgresStore, Record, RecordKey, RedisStore,
};
use lock_tests::servers::{PostgresServer, RedisServer, Server};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const HOUR: i64 = 60 * 60;

fn record(number: u8) -> Record {
    let response = axum::http::Response::new(Bytes::from(vec![number]));
    Record::new(Fingerprint::from_bytes([number; 32]), response)
}

/// A step back keeps a record longer. A step forward ends it no earlier than its lifetime says by that clock,
/// and the next record has its own.
async fn steps_of_the_clock_count_for_lifetimes_alone(
    store: impl IdempotencyStore,
    put_clock: impl Fn(i64),
) {
    let key = &RecordKey::new("ann", "/payments", "a");
    assert!(store.put(key, &record(1), DAY).await.unwrap());
    for hours in [23, -1, -1_000, 0] {
        put_clock(hours * HOUR);
        assert_eq!(store.get(key).await.unwrap(), Some(record(1)), "{hours} h");
        assert!(!store.put(key, &record(2), DAY).await.unwrap(), "{hours} h");
    }
    put_clock(25 * HOUR);
    assert_eq!(store.get(key).await.unwrap(), None);
    assert!(store.put(key, &record(3), DAY).await.unwrap());
    for hours in [48, 0, -1_000] {
        put_clock(hours * HOUR);
        assert_eq!(store.get(key).await.unwrap(), Some(record(3)), "{hours} h");
    }
}

#[tokio::test]
async fn steps_of_the_clock_of_postgres_count_for_lifetimes_alone() {
    let server = PostgresServer::options().own_clock().start().await;
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    let put_clock = |seconds| server.put_clock(seconds);
    steps_of_the_clock_count_for_lifetimes_alone(store.clone(), put_clock).await;
    // What counts as ended by the clock of now is deleted, and no more.
    server.put_clock(48 * HOUR);
    assert_eq!(store.clean_up().await.unwrap(), 0);
    server.put_clock(50 * HOUR);
    assert_eq!(store.clean_up().await.unwrap(), 1);
}

#[tokio::test]
async fn steps_of_the_clock_of_redis_count_for_lifetimes_alone() {
    let server = RedisServer::options().own_clock().start().await;
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let put_clock = |seconds| server.put_clock(seconds);
    steps_of_the_clock_count_for_lifetimes_alone(store, put_clock).await;
}
