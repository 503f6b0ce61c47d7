//! Payments: locked by the macro, with an error of our own for "already in progress".

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lock_core::{LockError, LockProvider, distributed_lock};
use lock_tower::LockRejection;

use crate::problem::problem;
use crate::work::{MAX_HOLD, Receipt, Work};

/// Why a payment was not refunded.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefundError {
    #[error("payment {0} is being refunded by another request")]
    InProgress(String),
    /// The locks do not work, or the lock was lost.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl IntoResponse for RefundError {
    fn into_response(self) -> Response {
        match self {
            Self::InProgress(_) => problem(
                StatusCode::CONFLICT,
                "urn:orders:problem:refund-in-progress",
                "Refund in progress",
                "Another request refunds this payment right now; this one did nothing.",
            ),
            Self::Lock(error) => LockRejection::from(error).into_response(),
        }
    }
}

/// Refunds a payment. A second request is refused immediately: it would have nothing left to refund.
#[distributed_lock(
    "payment:refund:<id>",
    wait = "0s",
    max_hold = MAX_HOLD,
    busy = Err(RefundError::InProgress(id)),
    guard = held
)]
pub(super) async fn refund(
    State(locks): State<LockProvider>,
    Path(id): Path<String>,
    Query(work): Query<Work>,
) -> Result<Json<Receipt>, RefundError> {
    let token = held.fencing_token().await?;
    Ok(Json(work.perform(held.name().as_str(), token).await))
}
