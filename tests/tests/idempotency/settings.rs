//! The store in PostgreSQL under settings and rights that roles, databases and servers can have.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use lock_core::LockProvider;
use lock_core::memory::MemoryBackend;
use lock_idempotency::{Fingerprint, IdempotencyStore, PostgresStore, Record, RecordKey};
use lock_tests::servers::PostgresServer;
use lock_tests::{Log, eventually};
use reqwest::StatusCode;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::postgres::ended_records_are_replaced_beside_cleaners;
use crate::store_in::{Shop, is_replay, send};
use crate::support::{Answer, Service, layer_over};

const LONG: Duration = Duration::from_secs(24 * 60 * 60);

fn record(body: &'static str) -> Record {
    let response = axum::http::Response::new(Bytes::from_static(body.as_bytes()));
    Record::new(Fingerprint::from_bytes([0; 32]), response)
}

/// A server with this in its database.
async fn server_with(sql: &[&'static str]) -> (PostgresServer, PgPool) {
    let server = PostgresServer::start().await;
    let admin = server.pool().await;
    for sql in sql {
        sqlx::raw_sql(*sql).execute(&admin).await.unwrap();
    }
    (server, admin)
}

#[tokio::test]
async fn urls_are_read_as_those_of_locks() {
    for (url, says) in [
        ("postgres://db/shop?sslmod=verify-full", "sslmode"),
        ("host=db user=app", "postgres://"),
        ("postgres://app:s3cr3t#1@db/shop", "percent-encoded"),
    ] {
        let refused = PostgresStore::connect(url).await.unwrap_err();
        assert!(refused.is_misconfigured(), "{refused:?}");
        assert!(refused.to_string().contains(says), "{refused}");
        assert!(!format!("{refused:?}").contains("s3cr3t"), "{refused:?}");
    }
}

#[tokio::test]
async fn a_standby_is_refused() {
    let primary = PostgresServer::start().await;
    PostgresStore::connect(&primary.url()).await.unwrap();
    let standby = primary.standby().await;
    standby.catch_up_with(&primary).await;
    let refused = PostgresStore::connect(&standby.url()).await.unwrap_err();
    assert!(refused.is_unavailable(), "{refused:?}");
    assert!(refused.to_string().contains("connect to the primary"));
}

/// As a primary that was replaced, while its connections stay open.
#[tokio::test]
async fn a_server_that_turns_read_only_replays_and_runs_nothing() {
    let server = PostgresServer::start().await;
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    let locks = LockProvider::new(MemoryBackend::new());
    let service = Service::start(layer_over(locks, store)).await;
    assert_eq!(Answer::of(service.payment()).await.status, 201);
    let read_only = "default_transaction_read_only";
    server.set(read_only, "on").await.unwrap();
    let mut keys = 0;
    eventually("the open sessions are read-only", || {
        keys += 1;
        let request = service.with_key(&keys.to_string());
        async { Answer::of(request).await.status == 503 }
    })
    .await;
    let (before, refused) = (service.runs(), Answer::of(service.with_key("b")).await);
    assert_eq!(
        (refused.status, &*refused.reason()),
        (503, "idempotency-store-unavailable")
    );
    assert_eq!(service.runs(), before);
    assert!(Answer::of(service.payment()).await.is_replay());
    server.set(read_only, "off").await.unwrap();
    eventually("it can be written to", || async {
        Answer::of(service.with_key("b")).await.status == 201
    })
    .await;
}

#[tokio::test]
async fn a_role_that_can_look_and_not_store_is_refused() {
    let (server, admin) = server_with(&[
        PostgresStore::MIGRATION,
        "CREATE ROLE poor LOGIN",
        "GRANT SELECT ON distributed_lock_idempotency TO poor",
    ])
    .await;
    let url = server.url_for("poor", "postgres");
    for more in ["INSERT", "UPDATE", "DELETE"] {
        let refused = PostgresStore::connect(&url).await.unwrap_err();
        assert!(refused.is_misconfigured(), "{refused:?}");
        assert!(refused.to_string().contains("GRANT SELECT, INSERT"));
        let grant = format!("GRANT {more} ON distributed_lock_idempotency TO poor");
        sqlx::raw_sql(sqlx::AssertSqlSafe(grant))
            .execute(&admin)
            .await
            .unwrap();
    }
    PostgresStore::connect(&url).await.unwrap();
}

#[tokio::test]
async fn a_role_without_rights_to_the_schema_is_given_them_all() {
    let (server, _) =
        server_with(&["CREATE ROLE poor LOGIN", "CREATE SCHEMA \"bil\"\"ling\""]).await;
    let owner = PgPool::connect(&server.url()).await.unwrap();
    PostgresStore::in_schema(owner, "bil\"ling").await.unwrap();
    let poor = PgPool::connect(&server.url_for("poor", "postgres"))
        .await
        .unwrap();
    let refused = PostgresStore::in_schema(poor, "bil\"ling")
        .await
        .unwrap_err();
    let grants = "GRANT USAGE ON SCHEMA \"bil\"\"ling\" TO app; GRANT SELECT, INSERT, UPDATE, DELETE ON \
                  \"bil\"\"ling\".distributed_lock_idempotency TO app;";
    assert!(refused.to_string().contains(grants), "{refused}");
}

/// Of another version, or of another application.
#[tokio::test]
async fn a_table_that_cannot_take_records_is_refused() {
    for table in [
        "CREATE TABLE distributed_lock_idempotency \
         (id bytea, record bytea, token bigint, expires_at timestamptz)",
        "CREATE TABLE distributed_lock_idempotency \
         (id bytea PRIMARY KEY, record bytea, expires_at timestamptz)",
    ] {
        let (server, _) = server_with(&[table]).await;
        let refused = PostgresStore::connect(&server.url()).await.unwrap_err();
        assert!(refused.is_misconfigured(), "{refused:?}");
        assert!(
            refused.to_string().contains(PostgresStore::MIGRATION),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn another_form_of_bytes_by_default_loses_no_record() {
    let (server, _) = server_with(&["ALTER DATABASE postgres SET bytea_output = 'escape'"]).await;
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    let key = &RecordKey::new("ann", "/payments", "a");
    assert!(store.put(key, &record("paid"), LONG).await.unwrap());
    assert_eq!(store.get(key).await.unwrap(), Some(record("paid")));
}

#[tokio::test]
async fn a_strict_isolation_by_default_loses_no_record() {
    for isolation in [
        "ALTER DATABASE postgres SET default_transaction_isolation = 'repeatable read'",
        "ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'",
    ] {
        let (server, _) = server_with(&[isolation]).await;
        ended_records_are_replaced_beside_cleaners(&server).await;
    }
}

/// As a session of a pooler can have it, or of a pool that others use.
#[tokio::test]
async fn a_path_that_changes_later_does_not_move_the_records() {
    let (server, _) = server_with(&["CREATE SCHEMA other"]).await;
    let one = PgPoolOptions::new().max_connections(1);
    let pool = one.connect(&server.url()).await.unwrap();
    // One makes the table, and one finds it.
    let made = PostgresStore::from_pool(pool.clone()).await.unwrap();
    let found = PostgresStore::from_pool(pool.clone()).await.unwrap();
    let key = &RecordKey::new("ann", "/payments", "a");
    assert!(made.put(key, &record("paid"), LONG).await.unwrap());
    // Where there is a table of this name as well.
    for sql in ["SET search_path = other", PostgresStore::MIGRATION] {
        sqlx::raw_sql(sql).execute(&pool).await.unwrap();
    }
    for (store, next) in [(made, "b"), (found, "c")] {
        assert_eq!(store.get(key).await.unwrap(), Some(record("paid")));
        assert!(!store.put(key, &record("twice"), LONG).await.unwrap());
        let next = RecordKey::new("ann", "/payments", next);
        assert!(store.put(&next, &record("paid"), LONG).await.unwrap());
    }
    let count = "SELECT (SELECT count(*) FROM public.distributed_lock_idempotency), \
         (SELECT count(*) FROM other.distributed_lock_idempotency)";
    let count = sqlx::query_as::<_, (i64, i64)>(count).fetch_one(&pool);
    assert_eq!(count.await.unwrap(), (3, 0));
}

/// The driver logs statements, and those that take a second as a warning.
#[tokio::test]
async fn what_is_stored_is_not_in_the_log() {
    const SECRET: &str = "the card of ann";
    let log = Log::of_process();
    let server = PostgresServer::start().await;
    let shop = Shop::open(&server.url()).await;
    let key = &RecordKey::new("ann", "/payments", "a");
    assert!(shop.store.put(key, &record(SECRET), LONG).await.unwrap());
    let paid = send(&shop.instance(), "a", &[], SECRET).await;
    assert_eq!(paid.status(), StatusCode::CREATED);
    assert!(log.count("sqlx::query") > 0, "statements are logged");
    for form in [SECRET.to_owned(), HEXLOWER.encode(SECRET.as_bytes())] {
        assert_eq!(log.count(&form), 0, "{form}");
    }
}

/// The locks of before had higher tokens.
#[tokio::test]
async fn a_record_that_has_ended_is_in_the_way_for_a_minute() {
    let server = PostgresServer::start().await;
    let shop = Shop::open(&server.url()).await;
    let app = shop.instance();
    let mut paid = 1;
    assert_eq!(
        send(&app, "a", &[], "x").await.status(),
        StatusCode::CREATED
    );
    for (ended, status) in [
        (
            "UPDATE distributed_lock_idempotency SET token = 9223372036854775807, \
          expires_at = clock_timestamp() - interval '1 s'",
            500,
        ),
        (
            "UPDATE distributed_lock_idempotency SET expires_at = clock_timestamp() - interval '1 min'",
            201,
        ),
    ] {
        sqlx::raw_sql(ended).execute(&shop.pool).await.unwrap();
        let answer = send(&app, "a", &[], "x").await;
        assert_eq!(
            (answer.status().as_u16(), is_replay(&answer)),
            (status, false)
        );
        paid += i64::from(status == 201);
        assert_eq!(shop.paid().await, paid);
    }
}
