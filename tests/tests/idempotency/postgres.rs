//! The store in PostgreSQL: its table, its rights, its cleaning, outages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use lock_core::LockProvider;
use lock_core::postgres::PostgresBackend;
use lock_idempotency::{Fingerprint, IdempotencyStore, PostgresStore, Record, RecordKey};
use lock_tests::eventually;
use lock_tests::servers::{PostgresServer, Server};
use sqlx::PgPool;

use crate::support::{Answer, Service, layer_over};

const LONG: Duration = Duration::from_secs(24 * 60 * 60);

fn record() -> Record {
    let response = axum::http::Response::new(Bytes::from_static(b"paid"));
    Record::new(Fingerprint::from_bytes([0; 32]), response)
}

async fn count(pool: &PgPool) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM distributed_lock_idempotency");
    count.fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn instances_that_start_together_make_one_table() {
    let server = PostgresServer::start().await;
    let url = server.url();
    let stores = join_all((0..8).map(|_| PostgresStore::connect(&url))).await;
    let key = RecordKey::new("ann", "", "a");
    stores[0]
        .as_ref()
        .unwrap()
        .put(&key, &record(), LONG)
        .await
        .unwrap();
    for store in stores {
        assert_eq!(store.unwrap().get(&key).await.unwrap(), Some(record()));
    }
}

#[tokio::test]
async fn a_role_that_may_not_create_is_given_the_sql() {
    let server = PostgresServer::start().await;
    let admin = server.pool().await;
    for sql in [
        "CREATE ROLE poor LOGIN",
        "REVOKE CREATE ON SCHEMA public FROM public, poor",
    ] {
        sqlx::raw_sql(sql).execute(&admin).await.unwrap();
    }
    let url = server.url_for("poor", "postgres");
    let refused = PostgresStore::connect(&url).await.unwrap_err();
    assert!(refused.is_misconfigured());
    assert!(
        refused.to_string().contains(PostgresStore::MIGRATION),
        "{refused}"
    );
    sqlx::raw_sql(PostgresStore::MIGRATION)
        .execute(&admin)
        .await
        .unwrap();
    sqlx::raw_sql(PostgresStore::MIGRATION)
        .execute(&admin)
        .await
        .unwrap();
    let refused = PostgresStore::connect(&url).await.unwrap_err();
    assert!(
        refused.is_misconfigured() && refused.to_string().contains("GRANT"),
        "{refused}"
    );
    let grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON distributed_lock_idempotency TO poor";
    sqlx::raw_sql(grant).execute(&admin).await.unwrap();
    let store = PostgresStore::connect(&url).await.unwrap();
    let key = RecordKey::new("ann", "", "a");
    assert!(store.put(&key, &record(), LONG).await.unwrap());
    assert_eq!(store.clean_up().await.unwrap(), 0);
}

#[tokio::test]
async fn a_schema_of_choice_has_the_table() {
    let server = PostgresServer::start().await;
    let pool = PgPool::connect(&server.url()).await.unwrap();
    let missing = PostgresStore::in_schema(pool.clone(), "bil\"ling")
        .await
        .unwrap_err();
    assert!(missing.is_misconfigured(), "{missing:?}");
    sqlx::raw_sql("CREATE SCHEMA \"bil\"\"ling\"")
        .execute(&pool)
        .await
        .unwrap();
    let store = PostgresStore::in_schema(pool.clone(), "bil\"ling")
        .await
        .unwrap();
    assert!(
        store
            .put(&RecordKey::new("", "", "a"), &record(), LONG)
            .await
            .unwrap()
    );
    let count = "SELECT count(*) FROM \"bil\"\"ling\".distributed_lock_idempotency";
    let count: i64 = sqlx::query_scalar(count).fetch_one(&pool).await.unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn what_has_ended_is_deleted_while_others_store() {
    let server = PostgresServer::start().await;
    let pool = PgPool::connect(&server.url()).await.unwrap();
    let store = PostgresStore::from_pool(pool.clone()).await.unwrap();
    let ended = "INSERT INTO distributed_lock_idempotency (id, record, expires_at) \
                 SELECT decode(md5(n::text), 'hex'), '', now() - interval '1 s' \
                 FROM generate_series(1, 5500) AS n";
    sqlx::raw_sql(ended).execute(&pool).await.unwrap();
    let puts = (0..200).map(|number| {
        let store = &store;
        async move {
            let key = RecordKey::new("ann", "", &number.to_string());
            store.put(&key, &record(), LONG).await.unwrap()
        }
    });
    let cleaners = join_all((0..3).map(|_| store.clean_up()));
    let (stored, cleaned) = tokio::join!(join_all(puts), cleaners);
    assert!(stored.into_iter().all(|stored| stored));
    let cleaned: u64 = cleaned.into_iter().map(Result::unwrap).sum();
    let left = store.clean_up().await.unwrap();
    assert_eq!((cleaned + left, count(&pool).await), (5_500, 200));
}

#[tokio::test]
async fn an_ended_record_that_is_replaced_is_not_deleted() {
    let server = PostgresServer::start().await;
    ended_records_are_replaced_beside_cleaners(&server).await;
}

pub(crate) async fn ended_records_are_replaced_beside_cleaners(server: &PostgresServer) {
    const RECORDS: usize = 2_000;
    let pool = PgPool::connect(&server.url()).await.unwrap();
    let store = PostgresStore::from_pool(pool.clone()).await.unwrap();
    let keys: Vec<_> = (0..RECORDS)
        .map(|number| RecordKey::new("ann", "", &number.to_string()))
        .collect();
    let paid = record();
    let ended = stream::iter(&keys).map(|key| store.put(key, &paid, Duration::ZERO));
    assert!(
        ended
            .buffer_unordered(8)
            .all(async |put| put.unwrap())
            .await
    );
    let is_over = AtomicBool::new(false);
    let cleaners = (0..3).map(async |_| {
        while !is_over.load(Ordering::SeqCst) {
            store.clean_up().await.unwrap();
        }
    });
    let replacing = async {
        let replaced = stream::iter(&keys).map(|key| store.put(key, &paid, LONG));
        let all = replaced
            .buffer_unordered(4)
            .all(async |put| put.unwrap())
            .await;
        is_over.store(true, Ordering::SeqCst);
        all
    };
    let (all, _) = tokio::join!(replacing, join_all(cleaners));
    assert!(all, "a record that had ended was in the way");
    assert_eq!(count(&pool).await, i64::try_from(RECORDS).unwrap());
}

#[tokio::test]
async fn a_server_that_goes_away_is_503_and_comes_back() {
    let server = PostgresServer::start().await;
    let locks = LockProvider::new(PostgresBackend::connect(&server.url()).await.unwrap());
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    let service = Service::start(layer_over(locks, store)).await;
    assert_eq!(Answer::of(service.payment()).await.status, 201);
    server.kill().await;
    for key in ["a", "b"] {
        let down = Answer::of(service.with_key(key)).await;
        assert_eq!(
            (down.status, &*down.reason()),
            (503, "idempotency-store-unavailable")
        );
    }
    assert_eq!(service.runs(), 1);
    server.restart().await;
    eventually("it is back", || async {
        Answer::of(service.with_key("c")).await.status == 201
    })
    .await;
    assert!(Answer::of(service.payment()).await.is_replay());
}
