use lock_core::{LockError, distributed_lock};

#[distributed_lock("order:process:<id>")]
async fn process(id: u64) -> Result<u64, LockError> {
    if id == 0 {
        return Ok("zero");
    }
    Ok(id)
}

fn main() {}
