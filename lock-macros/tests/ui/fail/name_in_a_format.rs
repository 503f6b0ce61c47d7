use lock_core::{LockError, distributed_lock};

#[distributed_lock(format!("order:process:{id}"))]
async fn process(id: u64) -> Result<(), LockError> {
    let _ = id;
    Ok(())
}

fn main() {}
