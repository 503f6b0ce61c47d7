use lock_core::{LockError, distributed_lock};

#[distributed_lock("order:process:<id>", at_least = "8d")]
async fn process(id: u64) -> Result<(), LockError> {
    let _ = id;
    Ok(())
}

fn main() {}
