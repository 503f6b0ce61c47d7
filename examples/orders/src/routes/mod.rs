//! The routes, and the locks of those that the layer locks.

mod accounts;
mod metrics;
mod orders;
mod parcels;
mod payments;
mod users;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, post};
use lock_core::{Leader, LockError, LockPolicy, LockProvider};
use lock_tower::{RouteLocks, console, health};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::order_store::OrderStore;
use crate::refunds::Refunds;
use crate::work::MAX_HOLD;

/// What handlers ask for by `State<..>`. Locked functions take the provider from the parameter that
/// is named `locks`.
#[derive(Clone, FromRef)]
struct AppState {
    locks: LockProvider,
    orders: OrderStore,
    refunds: Refunds,
    metrics: PrometheusHandle,
    /// Of those who dispatch parcels.
    leader: Leader,
}

/// The service. From here on this instance campaigns to dispatch parcels.
pub(crate) fn router(
    locks: LockProvider,
    orders: OrderStore,
    refunds: Refunds,
    metrics: PrometheusHandle,
) -> Result<Router, LockError> {
    let locked = RouteLocks::new(locks.clone()).router()?.route(
        "/orders/{id}/process",
        post(orders::process),
        "order:process:<id>",
        LockPolicy::user_request().with_max_hold(MAX_HOLD),
    )?;
    // The key outside, the lock of the payment inside: a replay needs no lock of the payment.
    let refund =
        post(payments::refund).route_layer(refunds.layer(locks.clone(), payments::caller)?);
    let state = AppState {
        locks: locks.clone(),
        orders,
        refunds,
        metrics,
        leader: locks.leader(parcels::DISPATCH)?,
    };
    Ok(locked
        .into_router()
        .route("/orders/{id}", get(orders::show).put(orders::put))
        .route("/parcels", post(parcels::dispatch))
        .route("/payments/{id}/refund", refund)
        .route("/users/{email}/login", post(users::login))
        .route("/accounts/transfer", post(accounts::transfer))
        .route("/metrics", get(metrics::show))
        .merge(health::router(locks.clone()))
        // A service that is not on this machine alone has it behind a login.
        .merge(console::router(locks))
        .with_state(state))
}
