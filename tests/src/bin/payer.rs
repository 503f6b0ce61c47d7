//! A service that takes payments under idempotency keys, and dies in the middle where a request says so.
//!
//! ```text
//! payer DATABASE_URL inside|after [ADDRESS PER_MILLE]
//! ```
//!
//! `inside` stores the response in the transaction of the payment, `after` leaves it to the layer. It listens at
//! the address, and says `ready` and where that is. `POST /payments/{id}` pays; the header `x-die` names the step
//! after which the process kills itself: `begin`, `effect`, `record`. Of a thousand payments without that so many
//! kill it after a step that chance chooses.

use std::error::Error;
use std::io::{self, Write};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use lock_core::postgres::PostgresBackend;
use lock_core::{LockError, LockProvider};
use lock_idempotency::{
    IdempotencyKey, IdempotencyLayer, IdempotencyStore, PostgresStore, Record, RecordKey,
    StoreInError,
};
use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};
use sqlx::PgPool;
use tokio::net::TcpListener;

#[derive(Clone)]
struct Payer {
    pool: PgPool,
    store: PostgresStore,
    is_inside: bool,
    per_mille: u32,
    dies_when_stored: Arc<AtomicBool>,
}

/// After each of these a process can die.
const STEPS: [&str; 3] = ["begin", "effect", "record"];

/// So long does a request wait for the first with its key: most clients do not send a 409 again by themselves.
const WAIT: Duration = Duration::from_secs(1);

/// Dies once the layer has stored, where a request said so.
struct Fatal(Payer);

impl IdempotencyStore for Fatal {
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, LockError> {
        IdempotencyStore::get(&self.0.store, key).await
    }

    async fn put(
        &self,
        key: &RecordKey,
        record: &Record,
        lifetime: Duration,
    ) -> Result<bool, LockError> {
        let stored = self.0.store.put(key, record, lifetime).await;
        if self.0.dies_when_stored.load(Ordering::SeqCst) {
            die();
        }
        stored
    }
}

enum Failed {
    Store(StoreInError),
    Database,
}

impl From<StoreInError> for Failed {
    fn from(error: StoreInError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for Failed {
    fn from(_: sqlx::Error) -> Self {
        Self::Database
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        match self {
            Self::Store(error) => error.into_response(),
            Self::Database => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        }
    }
}

async fn pay(
    State(payer): State<Payer>,
    Path(id): Path<i64>,
    key: IdempotencyKey,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    let chosen = (fastrand::u32(..1_000) < payer.per_mille)
        .then(|| STEPS[fastrand::usize(..STEPS.len())].as_bytes());
    let last = headers
        .get("x-die")
        .map_or(chosen, |step| Some(step.as_bytes()));
    let dies_after = |step: &str| last == Some(step.as_bytes());
    if dies_after("begin") {
        die();
    }
    let mut tx = payer.pool.begin().await?;
    let paid = sqlx::query_scalar("INSERT INTO payments (payment) VALUES ($1) RETURNING id");
    let effect: i64 = paid.bind(id).fetch_one(&mut *tx).await?;
    let response = (StatusCode::CREATED, effect.to_string()).into_response();
    if !payer.is_inside {
        tx.commit().await?;
        if dies_after("effect") {
            die();
        }
        payer
            .dies_when_stored
            .store(dies_after("record"), Ordering::SeqCst);
        return Ok(response);
    }
    if dies_after("effect") {
        die();
    }
    let response = payer.store.store_in(&mut tx, &key, response).await?;
    tx.commit().await?;
    if dies_after("record") {
        die();
    }
    Ok(response.into_response())
}

fn die() -> ! {
    // Nothing of this process runs after it.
    let _ = kill_process(getpid(), Signal::KILL);
    process::abort()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (url, mode, address, per_mille) = match arguments.as_slice() {
        [url, mode] => (url, mode, "127.0.0.1:0", 0),
        [url, mode, address, per_mille] => (url, mode, address.as_str(), per_mille.parse()?),
        _ => return Err("usage: payer DATABASE_URL inside|after [ADDRESS PER_MILLE]".into()),
    };
    let locks = LockProvider::new(PostgresBackend::connect(url).await?);
    let pool = PgPool::connect(url).await?;
    let payer = Payer {
        store: PostgresStore::from_pool(pool.clone()).await?,
        pool,
        is_inside: mode == "inside",
        per_mille,
        dies_when_stored: Arc::default(),
    };
    let layer = IdempotencyLayer::new(locks, Fatal(payer.clone()), |_| "all")?
        .required()
        .policy(WAIT);
    let app = Router::new()
        .route("/payments/{id}", post(pay).route_layer(layer))
        .with_state(payer);
    let listener = TcpListener::bind(address).await?;
    let mut output = io::stdout();
    writeln!(output, "ready\n{}", listener.local_addr()?)?;
    output.flush()?;
    axum::serve(listener, app).await?;
    Ok(())
}
