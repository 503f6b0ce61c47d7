use async_trait::async_trait;
use lock_core::{LockError, distributed_lock};

#[async_trait]
trait Shop {
    async fn process(&self, order: (u64, u64)) -> Result<(), LockError>;
}

struct Mine;

#[async_trait]
impl Shop for Mine {
    #[distributed_lock("order:process:<oder>")]
    async fn process(&self, (order, line): (u64, u64)) -> Result<(), LockError> {
        let _ = (order, line);
        Ok(())
    }
}

fn main() {}
