use lock_core::{LockError, distributed_lock};

#[distributed_lock("order:process:<id>", skip)]
async fn process(id: u64) -> Result<u64, LockError> {
    Ok(id)
}

fn main() {}
