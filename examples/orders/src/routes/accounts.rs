//! Accounts: two locks together, which the macro takes in one order for all.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lock_core::{FencingToken, LockError, LockProvider, distributed_lock};
use lock_tower::LockRejection;
use serde::Deserialize;

use crate::problem::problem;
use crate::work::{MAX_HOLD, Receipt, Work};

/// What to move from where to where.
#[derive(Debug, Deserialize)]
pub(super) struct Transfer {
    from: String,
    to: String,
    amount: u64,
}

/// Why nothing was transferred.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    #[error("one of the accounts is busy with other transfers")]
    AccountBusy,
    /// The locks do not work, or one was lost.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl IntoResponse for TransferError {
    fn into_response(self) -> Response {
        match self {
            Self::AccountBusy => problem(
                StatusCode::CONFLICT,
                "urn:orders:problem:account-busy",
                "Account busy",
                "Other transfers use one of the accounts; nothing was moved.",
            ),
            Self::Lock(error) => LockRejection::from(error).into_response(),
        }
    }
}

/// Moves an amount between two accounts. Transfers in opposite directions never wait for each other
/// in a circle, and an account may be transferred to itself.
#[distributed_lock(
    "account:transfer:<from>",
    "account:transfer:<to>",
    wait = "5s",
    max_hold = MAX_HOLD,
    busy = Err(TransferError::AccountBusy),
    guard = held
)]
pub(super) async fn transfer(
    State(locks): State<LockProvider>,
    Query(work): Query<Work>,
    Json(Transfer { from, to, amount }): Json<Transfer>,
) -> Result<Json<Receipt>, TransferError> {
    let names: Vec<_> = held.iter().map(|guard| guard.name().as_str()).collect();
    let mut token = FencingToken::new(0);
    for guard in held.iter() {
        // Each account would be written with the token of its own lock; the client sees the newest.
        token = token.max(guard.fencing_token().await?);
    }
    let receipt = work.perform(&names.join(", "), token).await;
    tracing::info!(amount, "transferred");
    Ok(Json(receipt))
}
