use lock_core::{LockError, distributed_lock};

/// The function is there for its callers, and knows its guard, whatever is wrong with the attribute.
#[distributed_lock("order:process", "order:ship:<ix>", wait = "soon", policy = fast, guard = held)]
async fn process(id: u64) -> Result<u64, LockError> {
    let _ = held.is_valid();
    Ok(id)
}

fn main() {
    let _ = process(1);
}
