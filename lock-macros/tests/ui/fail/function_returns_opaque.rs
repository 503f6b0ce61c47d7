use lock_core::distributed_lock;

#[distributed_lock("order:show:<id>")]
async fn show(id: u64) -> impl std::fmt::Display {
    id
}

fn main() {}
