use lock_core::{LockError, distributed_lock};

#[distributed_lock("order:process:<id>", permits = 257)]
async fn process(id: u64) -> Result<(), LockError> {
    let _ = id;
    Ok(())
}

fn main() {}
