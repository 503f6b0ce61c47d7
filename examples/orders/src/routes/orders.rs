//! Orders: locked by the layer, see the table in [`super::router`].

use axum::Json;
use axum::extract::{Path, Query, State};
use lock_core::{FencingToken, LockError};
use lock_tower::{HeldLock, LockRejection};
use serde::Serialize;

use crate::order_store::OrderStore;
use crate::work::{Receipt, Work};

/// An order as clients see it.
#[derive(Debug, Serialize)]
pub(super) struct Order {
    id: String,
    status: &'static str,
    /// Of the request that processed it.
    token: Option<FencingToken>,
}

/// Reading needs no lock.
pub(super) async fn show(State(orders): State<OrderStore>, Path(id): Path<String>) -> Json<Order> {
    let token = orders.processed_by(&id);
    let status = if token.is_some() { "processed" } else { "open" };
    Json(Order { id, status, token })
}

/// Processes an order. It runs to its end, and locked, even when the client does not wait for it.
///
/// The id is text: the layer locks what stands in the path, where `1` and `01` are two orders. An id
/// that is a number, `Path<u64>`, wants the macro, which locks the value.
pub(super) async fn process(
    State(orders): State<OrderStore>,
    Path(id): Path<String>,
    Query(work): Query<Work>,
    held: HeldLock,
) -> Result<Json<Receipt>, LockRejection> {
    let token = held.fencing_token().await?;
    let receipt = work.perform(held.name().as_str(), token).await;
    if !orders.mark_processed(&id, token) {
        return Err(LockError::lost("a later holder has written the order").into());
    }
    Ok(Json(receipt))
}
