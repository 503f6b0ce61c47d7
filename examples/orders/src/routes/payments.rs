//! Payments: locked by the macro, with an error of our own for "already in progress"; a refund with an
//! `Idempotency-Key` is made once.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header::AUTHORIZATION};
use axum::response::{IntoResponse, Response};
use lock_core::{LockError, LockProvider, distributed_lock};
use lock_idempotency::IdempotencyKey;
use lock_tower::LockRejection;

use crate::problem::problem;
use crate::refunds::{RefundNotWritten, Refunds};
use crate::work::{MAX_HOLD, Work};

/// Why a payment was not refunded.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefundError {
    #[error("payment {0} is being refunded by another request")]
    InProgress(String),
    /// The locks do not work.
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    NotWritten(#[from] RefundNotWritten),
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
            Self::Lock(error) | Self::NotWritten(RefundNotWritten::Lock(error)) => {
                LockRejection::from(error).into_response()
            }
            Self::NotWritten(RefundNotWritten::Answered(answer)) => answer.into_response(),
            Self::NotWritten(RefundNotWritten::Store(error)) => error.into_response(),
        }
    }
}

/// Whose a key is. This example believes what `Authorization: Bearer NAME` says. Take what your
/// authentication has found: a caller that may choose its name reads what another was answered.
pub(super) fn caller(parts: &Parts) -> Option<String> {
    let credentials = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    Some(credentials.strip_prefix("Bearer ")?.to_owned())
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
    State(refunds): State<Refunds>,
    Path(id): Path<String>,
    Query(work): Query<Work>,
    key: Option<IdempotencyKey>,
) -> Result<Response, RefundError> {
    let token = held.fencing_token().await?;
    let receipt = work.perform(held.name().as_str(), token).await;
    let answer = Json(receipt).into_response();
    let lock = (held.name(), token);
    Ok(refunds.write(&id, lock, key.as_ref(), answer).await?)
}
