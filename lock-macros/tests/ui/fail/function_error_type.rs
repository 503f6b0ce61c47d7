use lock_core::distributed_lock;

struct OrderError;

#[distributed_lock("order:process:<id>")]
async fn process(id: u64) -> Result<u64, OrderError> {
    Ok(id)
}

fn main() {}
