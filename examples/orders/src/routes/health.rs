//! Whether this instance can lock.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use lock_core::LockProvider;
use serde::Serialize;

/// The state of the backend of the locks.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    status: &'static str,
    locks: &'static str,
}

/// 200 when locks can be had, 503 when not. Takes no lock, and answers within two seconds also when
/// the backend does not.
pub(super) async fn show(State(locks): State<LockProvider>) -> (StatusCode, Json<Report>) {
    let health = locks.health().await;
    let (code, status) = match health.error() {
        None => (StatusCode::OK, "up"),
        Some(error) => {
            tracing::warn!(%error, "locks are unavailable");
            (StatusCode::SERVICE_UNAVAILABLE, "down")
        }
    };
    (
        code,
        Json(Report {
            status,
            locks: health.backend(),
        }),
    )
}
