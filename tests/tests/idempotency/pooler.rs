//! Records behind a pooler that gives a session to each transaction.

use futures_util::future::join_all;
use lock_tests::servers::{PgBouncer, PostgresServer};
use reqwest::StatusCode;

use crate::store_in::{Shop, send};

#[tokio::test]
async fn behind_a_transaction_pooler_each_payment_has_one_effect() {
    const PAYMENTS: usize = 40;
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
