use lock_core::{LockError, distributed_lock};

struct Locks;

#[distributed_lock("door:open:<door>")]
async fn open(locks: &Locks, door: u64) -> Result<u64, LockError> {
    let _ = locks;
    Ok(door)
}

fn main() {}
