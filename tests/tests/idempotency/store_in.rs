//! Records in the transaction of the effect, where locks do not help.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use lock_core::LockProvider;
use lock_core::memory::MemoryBackend;
use lock_idempotency::{
    IdempotencyKey, IdempotencyLayer, MemoryStore, PostgresStore, StoreInError,
};
use lock_tests::servers::PostgresServer;
use sqlx::{PgPool, Row};
use tokio::sync::Barrier;
use tower::ServiceExt;

#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) pool: PgPool,
    pub(crate) store: PostgresStore,
    /// Where two handlers wait for each other, both with their effect done and not committed.
    pub(crate) both: Arc<Barrier>,
}

enum Failed {
    Store(StoreInError),
    Database(sqlx::Error),
}

impl From<StoreInError> for Failed {
    fn from(error: StoreInError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        match self {
            Self::Store(error) => error.into_response(),
            Self::Database(error) => panic!("{error}"),
        }
    }
}

async fn pay(
    State(shop): State<Shop>,
    key: IdempotencyKey,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failed> {
    let mut tx = shop.pool.begin().await?;
    // Nothing is prepared: a pooler may stand in between.
    let paid = sqlx::raw_sql("INSERT INTO payments DEFAULT VALUES RETURNING id");
    let id: i64 = paid.fetch_one(&mut *tx).await?.try_get(0)?;
    for _ in headers.get_all("x-both") {
        shop.both.wait().await;
    }
    let response = (
        StatusCode::CREATED,
        [("location", format!("/payments/{id}"))],
        body,
    );
    let response = shop
        .store
        .store_in(&mut tx, &key, response.into_response())
        .await?;
    if headers.contains_key("x-roll-back") {
        tx.rollback().await?;
        return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
    }
    tx.commit().await?;
    Ok(response.into_response())
}

impl Shop {
    pub(crate) async fn open(url: &str) -> Self {
        let pool = PgPool::connect(url).await.unwrap();
        let table = "CREATE TABLE payments (id bigserial PRIMARY KEY)";
        sqlx::raw_sql(table).execute(&pool).await.unwrap();
        let store = PostgresStore::from_pool(pool.clone()).await.unwrap();
        Self {
            pool,
            store,
            both: Arc::new(Barrier::new(2)),
        }
    }

    /// An instance whose locks exclude no other instance.
    pub(crate) fn instance(&self) -> Router {
        let locks = LockProvider::new(MemoryBackend::new());
        let layer = IdempotencyLayer::new(locks, self.store.clone(), |_| "all").unwrap();
        let route = post(pay).route_layer(layer.required().response_limit(1_000));
        Router::new()
            .route("/payments", route)
            .with_state(self.clone())
    }

    pub(crate) async fn paid(&self) -> i64 {
        let count = sqlx::raw_sql("SELECT count(*) FROM payments");
        let row = count.fetch_one(&self.pool).await.unwrap();
        row.get(0)
    }
}

async fn ask(app: &Router, header: &str, body: impl Into<axum::body::Body>) -> Response {
    send(app, "a", &[header], body).await
}

pub(crate) async fn send(
    app: &Router,
    key: &str,
    headers: &[&str],
    body: impl Into<axum::body::Body>,
) -> Response {
    let request = axum::http::Request::post("/payments").header("idempotency-key", key);
    let request = headers
        .iter()
        .fold(request, |request, name| request.header(*name, "1"));
    let request = request.body(body.into()).unwrap();
    app.clone().oneshot(request).await.unwrap()
}

pub(crate) fn is_replay(response: &Response) -> bool {
    response.headers().contains_key("idempotent-replayed")
}

#[tokio::test]
async fn locks_that_exclude_none_still_give_one_effect() {
    let server = PostgresServer::start().await;
    let shop = Shop::open(&server.url()).await;
    let (here, there) = (shop.instance(), shop.instance());
    let (one, other) = tokio::join!(ask(&here, "x-both", "x"), ask(&there, "x-both", "x"));
    assert_eq!(
        (one.status(), other.status()),
        (StatusCode::CREATED, StatusCode::CREATED)
    );
    assert!(is_replay(&one) != is_replay(&other));
    assert_eq!(one.headers()["location"], other.headers()["location"]);
    assert_eq!(shop.paid().await, 1);
    let later = ask(&here, "x-later", "x").await;
    assert!(is_replay(&later));
    assert_eq!(later.headers()["location"], one.headers()["location"]);
}

#[tokio::test]
async fn of_two_payloads_under_one_key_one_is_refused_and_undone() {
    let server = PostgresServer::start().await;
    let shop = Shop::open(&server.url()).await;
    let (here, there) = (shop.instance(), shop.instance());
    let (one, other) = tokio::join!(ask(&here, "x-both", "x"), ask(&there, "x-both", "y"));
    let mut statuses = [one.status().as_u16(), other.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!((statuses, shop.paid().await), ([201, 422], 1));
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_leaves_no_record() {
    let server = PostgresServer::start().await;
    let shop = Shop::open(&server.url()).await;
    let app = shop.instance();
    assert_eq!(
        ask(&app, "x-roll-back", "x").await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(shop.paid().await, 0);
    assert!(!is_replay(&ask(&app, "x-now", "x").await));
    assert_eq!(shop.paid().await, 1);
}

#[tokio::test]
async fn a_response_beyond_the_cap_undoes_the_effect() {
    let server = PostgresServer::start().await;
    let shop = Shop::open(&server.url()).await;
    let answer = ask(&shop.instance(), "x-now", vec![0; 1_001]).await;
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(shop.paid().await, 0);
}

/// A holder that lost its lock and goes on all the same, in a task that no layer stops.
#[tokio::test]
async fn a_holder_that_lost_its_lock_stores_nothing() {
    let server = PostgresServer::start().await;
    let shop = Shop::open(&server.url()).await;
    let backend = MemoryBackend::new();
    let locks = LockProvider::new(backend.clone());
    let layer = IdempotencyLayer::new(locks, shop.store.clone(), |_| "all").unwrap();
    let (told, outcome) = tokio::sync::oneshot::channel();
    let told = Arc::new(std::sync::Mutex::new(Some(told)));
    let handler = {
        let shop = shop.clone();
        move |key: IdempotencyKey| async move {
            let told = told.lock().unwrap().take().unwrap();
            let work = tokio::spawn(async move {
                let mut tx = shop.pool.begin().await.unwrap();
                backend.revoke(key.held().name());
                let stored =
                    shop.store
                        .store_in(&mut tx, &key, Response::new(axum::body::Body::empty()));
                let error = stored.await.map(drop).unwrap_err();
                told.send(error.failed().is_some_and(lock_core::LockError::is_lost))
                    .unwrap();
            });
            work.await.unwrap();
        }
    };
    let app = Router::new().route("/payments", post(handler).route_layer(layer));
    assert_eq!(
        ask(&app, "x-now", "x").await.status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );
    assert!(
        tokio::time::timeout(Duration::from_secs(30), outcome)
            .await
            .unwrap()
            .unwrap()
    );
    let records = sqlx::query_scalar("SELECT count(*) FROM distributed_lock_idempotency");
    let records: i64 = records.fetch_one(&shop.pool).await.unwrap();
    assert_eq!(records, 0);
}

/// What was stored under the key of a call is not stored under that of its caller.
#[tokio::test]
async fn a_handler_that_answers_what_another_has_stored_is_stored() {
    let server = PostgresServer::start().await;
    let shop = Shop::open(&server.url()).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let handler = {
        let inner = shop.instance();
        move || async move {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            send(&inner, &format!("call-{call}"), &[], "x").await
        }
    };
    let locks = LockProvider::new(MemoryBackend::new());
    let layer = IdempotencyLayer::new(locks, MemoryStore::new(), |_| "all").unwrap();
    let app = Router::new().route("/payments", post(handler).route_layer(layer));
    assert!(!is_replay(&ask(&app, "x-now", "x").await));
    assert!(is_replay(&ask(&app, "x-now", "x").await));
    assert_eq!(shop.paid().await, 1);
}
