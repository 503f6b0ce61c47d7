use axum::response::{IntoResponse, Response};
use lock_core::distributed_lock;

#[distributed_lock("order:show:<id>")]
async fn show(id: u64) -> Response {
    id.to_string().into_response()
}

fn main() {}
