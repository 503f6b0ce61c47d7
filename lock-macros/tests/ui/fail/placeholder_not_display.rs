use lock_core::{LockError, distributed_lock};

struct Id(u64);

#[distributed_lock("order:process:<id>")]
async fn process(id: Id) -> Result<u64, LockError> {
    Ok(id.0)
}

fn main() {}
