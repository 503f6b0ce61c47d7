//! What an idempotency key costs: the first request with a key, and one that is replayed, beside the same route
//! without the layer, for each store: `cargo bench -p lock-tests --bench idempotency`.
//!
//! Requests are calls of the router, without sockets. The locks are where the records are.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails ends")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::future::BoxFuture;
use lock_core::LockProvider;
use lock_core::memory::MemoryBackend;
use lock_core::postgres::PostgresBackend;
use lock_core::redis::RedisBackend;
use lock_idempotency::{
    IdempotencyKey, IdempotencyLayer, IdempotencyStore, MemoryStore, PostgresStore, RedisStore,
};
use lock_tests::comparison::{compare, title_of};
use lock_tests::servers::{PostgresServer, RedisServer, Server};
use rustix::process::Pid;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tower::ServiceExt;

/// What the handlers answer.
const ANSWER: &str = r#"{"payment":"8e03978e-40d5-43dd-bc93-6894a57f9324","cents":500}"#;

/// Connections of the pool that the records and the payments use.
const POOL: u32 = 16;

/// A key that no request had before.
fn fresh() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("key-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

async fn pay() -> (StatusCode, &'static str) {
    (StatusCode::CREATED, ANSWER)
}

/// A payment in a transaction, with the record of the key in it where there is one.
async fn pay_in_transaction(
    State((pool, store)): State<(PgPool, PostgresStore)>,
    key: Option<IdempotencyKey>,
) -> Response {
    let mut tx = pool.begin().await.unwrap();
    let pay = sqlx::query("INSERT INTO payments (cents) VALUES (500)");
    pay.execute(&mut *tx).await.unwrap();
    let response = (StatusCode::CREATED, ANSWER).into_response();
    let response = match key {
        Some(key) => {
            let stored = store.store_in(&mut tx, &key, response).await;
            stored.unwrap().into_response()
        }
        None => response,
    };
    tx.commit().await.unwrap();
    response
}

/// Sends the request, and reads the answer to its end.
async fn send(app: Router, key: Option<String>, is_replay: bool) {
    let mut request = Request::post("/payments");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Body::from(r#"{"cents":500}"#)).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let replayed = response.headers().contains_key("idempotent-replayed");
    assert_eq!(replayed, is_replay);
    to_bytes(response.into_body(), ANSWER.len()).await.unwrap();
}

type Call = Box<dyn Fn() -> BoxFuture<'static, ()> + Send>;

/// Each request with a key of its own.
fn first(app: &Router) -> Call {
    let app = app.clone();
    Box::new(move || Box::pin(send(app.clone(), Some(fresh()), false)))
}

/// Each with the key that was used before.
fn replay(app: &Router, key: &Arc<str>) -> Call {
    let (app, key) = (app.clone(), Arc::clone(key));
    Box::new(move || Box::pin(send(app.clone(), Some(key.to_string()), true)))
}

fn plain(app: &Router) -> Call {
    let app = app.clone();
    Box::new(move || Box::pin(send(app.clone(), None, false)))
}

/// Prints what both cost, one request after the other and 64 at a time. `counts` are the requests of a round, and
/// of one without the layer, for each of the two.
async fn measure(
    (what, processes): (&str, impl Fn() -> Vec<Pid> + Copy),
    (with, without): (&Router, &Router),
    counts: [(usize, usize); 2],
) {
    let key: Arc<str> = fresh().into();
    send(with.clone(), Some(key.to_string()), false).await;
    for (tasks, (count, plain_count)) in [1, 64].into_iter().zip(counts) {
        let peer = |_| plain(without);
        let first = |_| first(with);
        let replay = |_| replay(with, &key);
        let both: [(&str, &dyn Fn(usize) -> Call); 2] =
            [("first request", &first), ("replay", &replay)];
        for (kind, ours) in both {
            let name = format!("{what}, {kind}");
            compare(
                (&name, processes),
                tasks,
                (ours, count),
                (peer, plain_count),
            )
            .await;
        }
    }
}

/// The route without the layer, and with it over these locks and this store.
fn routes(locks: LockProvider, store: impl IdempotencyStore) -> (Router, Router) {
    let layer = IdempotencyLayer::new(locks, store, |_| "all").unwrap();
    let with = Router::new().route("/payments", post(pay).route_layer(layer));
    (with, Router::new().route("/payments", post(pay)))
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` only looks whether it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    title_of("key", "no layer");
    let locks = LockProvider::new(MemoryBackend::new());
    let (with, without) = routes(locks, MemoryStore::new());
    let memory = ("memory", Vec::new as fn() -> Vec<Pid>);
    measure(
        memory,
        (&with, &without),
        [(40_000, 100_000), (60_000, 100_000)],
    )
    .await;

    let server = RedisServer::start().await;
    let backend = RedisBackend::builder(&server.url()).quarantine(Duration::ZERO);
    let locks = LockProvider::new(backend.connect().await.unwrap());
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let (with, without) = routes(locks, store);
    let redis = ("Redis", || server.processes());
    measure(
        redis,
        (&with, &without),
        [(3_000, 100_000), (20_000, 100_000)],
    )
    .await;

    let server = PostgresServer::start().await;
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    let locks = LockProvider::new(backend);
    let pool = PgPoolOptions::new().max_connections(POOL);
    let pool = pool.connect(&server.url()).await.unwrap();
    let store = PostgresStore::from_pool(pool.clone()).await.unwrap();
    let (with, without) = routes(locks.clone(), store.clone());
    let postgres = ("PostgreSQL", || server.processes());
    measure(
        postgres,
        (&with, &without),
        [(2_000, 100_000), (10_000, 100_000)],
    )
    .await;

    let table = "CREATE TABLE payments (id bigserial PRIMARY KEY, cents bigint NOT NULL)";
    sqlx::raw_sql(table).execute(&pool).await.unwrap();
    let layer = IdempotencyLayer::new(locks, store.clone(), |_| "all").unwrap();
    let pay = || post(pay_in_transaction);
    let with = Router::new().route("/payments", pay().route_layer(layer));
    let without = Router::new().route("/payments", pay());
    let (with, without) = (
        with.with_state((pool.clone(), store.clone())),
        without.with_state((pool, store)),
    );
    let payment = ("PostgreSQL, transaction", || server.processes());
    measure(payment, (&with, &without), [(2_000, 2_000), (8_000, 8_000)]).await;
}
