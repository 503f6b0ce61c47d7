//! Orders: processed under a lock of the layer, see [`super::router`]; changed without.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lock_tower::{HeldLock, LockRejection};
use serde::Deserialize;

use crate::order_store::{Order, OrderStore, StoreError, WriteError};
use crate::problem::problem;
use crate::work::{Receipt, Work};

/// An order as it shall be.
#[derive(Debug, Deserialize)]
pub(super) struct Change {
    quantity: i32,
    /// That of the order which the change is based on; none for a new order.
    version: Option<String>,
}

/// Reading needs no lock of the caller's; see [`crate::order_cache`] for how old the answer can be.
pub(super) async fn show(
    State(orders): State<OrderStore>,
    Path(id): Path<String>,
) -> Result<Response, StoreError> {
    Ok(match orders.find(&id).await? {
        Some(order) => Json(order).into_response(),
        None => problem(
            StatusCode::NOT_FOUND,
            "urn:orders:problem:order-unknown",
            "Order unknown",
            "There is no order with this id.",
        ),
    })
}

/// Places or changes an order. No lock: this is one row of one database, where it is enough to see
/// at the write that no other request was faster. One that was not reads again, and decides again.
pub(super) async fn put(
    State(orders): State<OrderStore>,
    Path(id): Path<String>,
    Json(Change { quantity, version }): Json<Change>,
) -> Result<Json<Order>, WriteError> {
    orders.save(id, quantity, version).await.map(Json)
}

/// Processes an order. It runs to its end, and locked, even when the client does not wait for it.
///
/// The id is text, for the database as well: the layer locks what stands in the path, where `1` and `01`
/// are two orders. Were it a number, `Path<u64>`, the routes would say `.param_as::<u64>("id")`.
pub(super) async fn process(
    State(orders): State<OrderStore>,
    Path(id): Path<String>,
    Query(work): Query<Work>,
    held: HeldLock,
) -> Result<Json<Receipt>, WriteError> {
    let token = held.fencing_token().await?;
    let receipt = work.perform(held.name().as_str(), token).await;
    orders
        .mark_processed(id, held.name().clone(), token)
        .await?;
    Ok(Json(receipt))
}

impl IntoResponse for StoreError {
    fn into_response(self) -> Response {
        match self {
            Self::InvalidId => problem(
                StatusCode::BAD_REQUEST,
                "urn:orders:problem:order-id-invalid",
                "Not an order id",
                "No order can have this id.",
            ),
            Self::Silent | Self::Database(_) => {
                tracing::error!(
                    error = &self as &dyn std::error::Error,
                    "orders are unavailable"
                );
                problem(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "urn:orders:problem:orders-unavailable",
                    "Orders are unavailable",
                    "The orders cannot be reached now; try again later.",
                )
            }
        }
    }
}

impl IntoResponse for WriteError {
    fn into_response(self) -> Response {
        match self {
            Self::Changed => problem(
                StatusCode::CONFLICT,
                "urn:orders:problem:order-changed",
                "Order changed",
                "The order is not as it was when you read it; nothing was changed. Read it again.",
            ),
            Self::Lock(error) => LockRejection::from(error).into_response(),
            Self::Store(error) => error.into_response(),
        }
    }
}
