use lock_core::{LockError, distributed_lock};

#[distributed_lock]
async fn process() -> Result<(), LockError> {
    Ok(())
}

fn main() {}
