use lock_core::{LockError, distributed_lock};

#[distributed_lock("job:<tenant>")]
async fn clean_up(tenant: &str) -> Result<(), LockError> {
    let _ = tenant;
    Ok(())
}

fn main() {}
