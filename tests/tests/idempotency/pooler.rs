//! Records behind a pooler that gives a session to each transaction.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use lock_idempotency::{Fingerprint, IdempotencyStore, PostgresStore, Record, RecordKey};
use lock_tests::servers::{PgBouncer, PostgresServer};
use reqwest::StatusCode;

use crate::store_in::{Shop, send};

#[tokio::test]
async fn behind_a_transaction_pooler_each_payment_has_one_effect() {
    // What they wait for the three sessions is far from what a store may take.
    const PAYMENTS: usize = 12;
    let server = PostgresServer::start().await;
    let pooled = [("pool_mode", "transaction"), ("default_pool_size", "3")];
    let pooler = PgBouncer::with(&server, &pooled).await;
    let shop = Shop::open(&pooler.url()).await;
    // Their locks do not know of each other: only the rows of the records keep them apart.
    let instances = [(); 3].map(|()| shop.instance());
    let answers = (0..PAYMENTS).map(async |payment| {
        let key = payment.to_string();
        join_all(instances.iter().map(|app| send(app, &key, &[], "x"))).await
    });
    for answers in join_all(answers).await {
        let places = answers.iter().map(|answer| {
            assert_eq!(answer.status(), StatusCode::CREATED);
            &answer.headers()["location"]
        });
        let mut places: Vec<_> = places.collect();
        places.dedup();
        assert_eq!(places.len(), 1, "{places:?}");
    }
    assert_eq!(shop.paid().await, i64::try_from(PAYMENTS).unwrap());
    assert_eq!(shop.store.clean_up().await.unwrap(), 0);
}

/// A statement that is prepared by one client must not run with the record of another.
#[tokio::test]
async fn behind_a_transaction_pooler_each_key_has_its_own_record() {
    let server = PostgresServer::start().await;
    let pooled = [("pool_mode", "transaction"), ("default_pool_size", "2")];
    let pooler = PgBouncer::with(&server, &pooled).await;
    let url = pooler.url();
    let stores = join_all((0..4).map(async |_| PostgresStore::connect(&url).await.unwrap())).await;
    let puts = (0..200_usize).map(async |number| {
        let body = Bytes::from(number.to_string());
        let fingerprint = Fingerprint::from_bytes([0; 32]);
        let record = Record::new(fingerprint, axum::http::Response::new(body));
        let key = RecordKey::new("ann", "/payments", &number.to_string());
        let (here, there) = (&stores[number % 4], &stores[(number + 1) % 4]);
        let lifetime = Duration::from_secs(60);
        assert!(here.put(&key, &record, lifetime).await.unwrap());
        assert_eq!(there.get(&key).await.unwrap(), Some(record));
    });
    join_all(puts).await;
}
