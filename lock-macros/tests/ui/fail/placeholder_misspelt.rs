use lock_core::{LockError, distributed_lock};

#[distributed_lock("order:process:<oder_id>")]
async fn process(order_id: u64, note: &str) -> Result<(), LockError> {
    let _ = (order_id, note);
    Ok(())
}

fn main() {}
