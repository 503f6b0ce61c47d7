use lock_core::{LockError, distributed_lock};

#[distributed_lock("order:process:<id>")]
async fn process() -> Result<(), LockError> {
    Ok(())
}

fn main() {}
