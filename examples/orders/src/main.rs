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
//! | `POST /payments/{id}/refund` | `payment:refund:<id>`, does not wait | the macro |
//! | `POST /users/{email}/login` | `user:login:<email:hashed>`, waits 5 s | the macro |
//! | `POST /accounts/transfer` | `account:transfer:<..>` of both accounts, waits 5 s | the macro |
//! | `GET /orders/{id}` | `order:read:<id>` where it is in no cache | [by hand](order_cache) |
//! | `PUT /orders/{id}` | none: the version decides | |
//! | `GET /health` | none | |
//! | every 2 s | `job:cleanup-tokens`, skipped where another instance is at it | the macro |
//!
//! Environment: `BIND` (default `127.0.0.1:3000`), `DATABASE_URL` (a PostgreSQL server that holds the
//! orders and the locks, `postgres://user:password@host/database`), `REDIS_URL` (with a database: a
//! cache that the instances share), `LOCK_DIR` (without a server: default, a directory of the user),
//! `LOCK_NAME_SECRET` (the key of hashed names), `RUST_LOG`.

mod cleanup;
mod config;
mod locks;
mod order_cache;
mod order_store;
mod problem;
mod routes;
mod shutdown;
mod startup;
mod work;

use anyhow::Context;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::order_store::OrderStore;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    startup::init_logging();
    let config = Config::from_env();
    let locks = locks::open(&config).await?;
    let orders = OrderStore::open(&config, &locks).await?;
    let listener = TcpListener::bind(&config.bind)
        .await
        .with_context(|| format!("cannot listen on {}", config.bind))?;

    let stop = shutdown::on_signal()?;
    let job = tokio::spawn(cleanup::run(locks.clone(), stop.clone()));
    let app = routes::router(locks.clone(), orders)?;
    startup::greet(listener.local_addr()?);

    shutdown::serve(listener, app, stop).await?;
    job.await?;
    locks.shutdown(shutdown::LOCK_GRACE).await;
    Ok(())
}
