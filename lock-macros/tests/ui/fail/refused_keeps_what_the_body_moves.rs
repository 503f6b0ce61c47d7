use lock_core::distributed_lock;

#[distributed_lock("page:show:<key>", refused = |error| format!("{key}: {error}"))]
async fn show(key: String) -> String {
    key
}

fn main() {}
