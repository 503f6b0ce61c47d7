use lock_core::{LockError, distributed_lock};

#[distributed_lock("order:process:<customer>")]
async fn process(a: u64, b: u64) -> Result<(), LockError> {
    let _ = (a, b);
    Ok(())
}

fn main() {}
