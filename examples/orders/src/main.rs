//! A service for orders, payments and accounts that runs in as many instances as you like: what must
//! not happen twice at the same time is locked, whichever instance a request reaches.
//!
//! Start two of them and see for yourself:
//!
//! ```text
//! cargo run -p orders
//! BIND=127.0.0.1:3001 cargo run -p orders
//! ```
//!
//! | route | lock | by |
//! | --- | --- | --- |
//! | `POST /orders/{id}/process` | `order:process:<id>`, waits 5 s | the layer [`RouteLocks`](lock_tower::RouteLocks) |
//! | `POST /payments/{id}/refund` | `payment:refund:<id>`, does not wait; once for each `Idempotency-Key` of a caller | the macro, in the layer [`IdempotencyLayer`](lock_idempotency::IdempotencyLayer) |
//! | `POST /users/{email}/login` | `user:login:<email:hashed>`, waits 5 s | the macro |
//! | `POST /accounts/transfer` | `account:transfer:<..>` of both accounts, waits 5 s | the macro |
//! | `POST /parcels` | `job:dispatch-parcels`, led by one instance; the others answer 307 to its address | [`Leader`](lock_core::Leader) |
//! | `GET /orders/{id}` | `order:read:<id>` where it is in no cache | [by hand](order_cache) |
//! | `PUT /orders/{id}` | none: the version decides | |
//! | `GET /health`, `/health/live`, `/health/ready`, `/metrics` | none | |
//! | `GET /locks`, `/locks.json`: who holds what, in a browser | none | [the page](lock_tower::console) |
//! | every 2 s | `job:cleanup-tokens`, skipped where another instance is at it | the macro |
//!
//! Environment: `BIND` (default `127.0.0.1:3000`), `RUST_LOG`, and where the locks are, as
//! [`LockSettings`](lock_core::LockSettings) reads it: in Redis with `REDIS_URL`
//! (`redis://:password@host` or `host:6379,password=..`), else in PostgreSQL with `DATABASE_URL`
//! (`postgres://user:password@host/database`), else in the files of `LOCK_DIR`; `LOCK_PROVIDER`,
//! `LOCK_NAMESPACE`, `LOCK_INSTANCE` (where clients reach this instance; by default `BIND`), `LOCK_LEASE`, `LOCK_TABLE`,
//! `LOCK_NAME_SECRET` (the key of hashed names), `LOCK_MARKER`, `LOCK_SWITCH`. The database of
//! `DATABASE_URL` holds the orders, and the server of `REDIS_URL` then what was read of them. Answers to refunds
//! with a key are kept in that database, else in that Redis server, else in the memory of each instance.

mod cleanup;
mod config;
mod database;
mod metrics;
mod order_cache;
mod order_store;
mod problem;
mod refunds;
mod routes;
mod shutdown;
mod startup;
mod work;

use anyhow::{Context, bail};
use lock_core::LockProvider;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::order_store::OrderStore;
use crate::refunds::Refunds;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(argument) = std::env::args_os().nth(1) {
        bail!(
            "{argument:?}: there are no arguments; the environment configures the service, as README.md says"
        );
    }
    startup::init_logging()?;
    let config = Config::from_env()?;
    let metrics = metrics::install()?;
    let locks = LockProvider::connect(config.locks.clone()).await?;
    let database = match &config.database_url {
        Some(url) => Some(database::open(url).await?),
        None => None,
    };
    let orders = OrderStore::open(database.clone(), &config, &locks)?;
    let refunds = Refunds::open(database, &config).await?;
    let listener = TcpListener::bind(&config.bind)
        .await
        .with_context(|| format!("cannot listen on BIND={}; give HOST:PORT", config.bind))?;

    let stop = shutdown::on_signal()?;
    let job = tokio::spawn(cleanup::run(locks.clone(), stop.clone()));
    let app = routes::router(locks.clone(), orders, refunds, metrics)?;
    startup::greet(listener.local_addr()?);

    shutdown::serve(listener, app, locks, stop).await?;
    job.await?;
    Ok(())
}
