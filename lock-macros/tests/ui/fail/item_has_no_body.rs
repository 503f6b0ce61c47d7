use lock_core::{LockError, distributed_lock};

trait Shop {
    #[distributed_lock("order:process:<id>")]
    async fn process(&self, id: u64) -> Result<(), LockError>;
}

fn main() {}
