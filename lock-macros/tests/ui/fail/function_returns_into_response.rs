use axum::response::IntoResponse;
use lock_core::distributed_lock;

#[distributed_lock("order:show:<id>")]
async fn show(id: u64) -> impl IntoResponse {
    id.to_string()
}

fn main() {}
