use lock_core::{LockError, distributed_lock};

#[distributed_lock("catalog:read:<id>", reader)]
async fn read(id: u64) -> Result<(), LockError> {
    let _ = id;
    Ok(())
}

fn main() {}
