//! Users: the value in the lock's name is hashed, since names reach logs and lock servers.

use axum::Json;
use axum::extract::{Path, Query, State};
use lock_core::{LockProvider, distributed_lock};
use lock_tower::LockRejection;

use crate::work::{MAX_HOLD, Receipt, Work};

/// Logs a user in, one attempt at a time: guessing passwords does not get faster with more
/// connections.
///
/// `LockRejection` as the error answers for all that can go wrong with a lock.
#[distributed_lock(
    "user:login:<email:hashed>",
    wait = "5s",
    max_hold = MAX_HOLD,
    guard = held
)]
pub(super) async fn login(
    State(locks): State<LockProvider>,
    Path(email): Path<String>,
    Query(work): Query<Work>,
) -> Result<Json<Receipt>, LockRejection> {
    let token = held.fencing_token().await?;
    // The label is the template: it does not show who logged in.
    Ok(Json(work.perform(held.name().label(), token).await))
}
