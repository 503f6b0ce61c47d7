//! Users: the value in the lock's name is hashed, since names reach logs and lock servers.

use std::fmt;

use axum::Json;
use axum::extract::{Path, Query, State};
use lock_core::{LockProvider, distributed_lock};
use lock_tower::LockRejection;
use serde::Deserialize;

use crate::work::{MAX_HOLD, Receipt, Work};

/// An address as it names a user: in lower case, or each spelling of it would be a lock, and more
/// attempts at a time.
#[derive(Debug, Deserialize)]
#[serde(from = "String")]
pub(super) struct Email(String);

impl From<String> for Email {
    fn from(text: String) -> Self {
        Self(text.to_lowercase())
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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
    Path(email): Path<Email>,
    Query(work): Query<Work>,
) -> Result<Json<Receipt>, LockRejection> {
    let token = held.fencing_token().await?;
    // The label is the template: it does not show who logged in.
    Ok(Json(work.perform(held.name().label(), token).await))
}
