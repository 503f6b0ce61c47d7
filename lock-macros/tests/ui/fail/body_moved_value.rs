use lock_core::{LockError, distributed_lock};

#[distributed_lock("order:process:<id>")]
async fn process(id: String) -> Result<String, LockError> {
    drop(id);
    Ok(id)
}

fn main() {}
