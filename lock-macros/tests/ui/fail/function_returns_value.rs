use lock_core::distributed_lock;

#[distributed_lock("order:count:<id>")]
async fn count(id: u64) -> u64 {
    id
}

fn main() {}
