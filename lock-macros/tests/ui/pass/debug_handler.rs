#![deny(warnings)]
//! `#[axum::debug_handler]` above and below, and handlers without it.

#[path = "../support/mod.rs"]
mod support;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use lock_core::{LockError, LockProvider, distributed_lock};
use support::{hold, is_held, locks};

struct AppError(LockError);

impl From<LockError> for AppError {
    fn from(error: LockError) -> Self {
        Self(error)
    }
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        let conflict = self.0.is_contended();
        let status = if conflict {
            StatusCode::CONFLICT
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        status.into_response()
    }
}

#[axum::debug_handler(state = LockProvider)]
#[distributed_lock("order:ship:<id>", wait = "0s")]
async fn above(State(locks): State<LockProvider>, Path(id): Path<u64>) -> Result<String, AppError> {
    assert!(is_held(&locks, "order:ship:7").await);
    Ok(format!("{id} true"))
}

#[distributed_lock("order:ship:<id>", wait = "0s", guard = held)]
#[axum::debug_handler]
async fn below(
    State(locks): State<LockProvider>,
    Path(id): Path<u64>,
    body: String,
) -> Result<String, AppError> {
    assert!(is_held(&locks, "order:ship:7").await);
    Ok(format!("{id} {} {body}", held.is_valid()))
}

#[distributed_lock("order:show:<id>", wait = "0s", refused = |_| StatusCode::LOCKED.into_response())]
#[axum::debug_handler]
async fn response(State(locks): State<LockProvider>, Path(id): Path<u64>) -> impl IntoResponse {
    assert!(is_held(&locks, &format!("order:show:{id}")).await);
    StatusCode::OK.into_response()
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() {
    let locks = locks();
    let _router: Router = Router::new()
        .route("/a/{id}", post(above))
        .route("/b/{id}", post(below))
        .route("/c/{id}", post(response))
        .with_state(locks.clone());

    let state = || State(locks.clone());
    assert_eq!(above(state(), Path(7)).await.ok().expect("free"), "7 true");
    assert_eq!(
        below(state(), Path(7), "x".into())
            .await
            .ok()
            .expect("free"),
        "7 true x"
    );
    assert_eq!(
        response(state(), Path(1)).await.into_response().status(),
        StatusCode::OK
    );
    let _guard = hold(&locks, "order:ship:7").await;
    let status = |result: Result<String, AppError>| result.into_response().status();
    assert_eq!(status(above(state(), Path(7)).await), StatusCode::CONFLICT);
    assert_eq!(
        status(below(state(), Path(7), String::new()).await),
        StatusCode::CONFLICT
    );
    let _other = hold(&locks, "order:show:1").await;
    assert_eq!(
        response(state(), Path(1)).await.into_response().status(),
        StatusCode::LOCKED
    );
}
