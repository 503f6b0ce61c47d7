use lock_core::{LockError, distributed_lock};

#[distributed_lock("door:open:<door>")]
async fn open(door: u64, locks: Vec<u64>) -> Result<bool, LockError> {
    Ok(locks.contains(&door))
}

fn main() {}
