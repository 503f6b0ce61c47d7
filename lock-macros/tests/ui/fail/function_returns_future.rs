use lock_core::{LockError, distributed_lock};

#[distributed_lock("order:process:<id>")]
fn process(id: u64) -> impl Future<Output = Result<u64, LockError>> {
    async move { Ok(id) }
}

fn main() {}
