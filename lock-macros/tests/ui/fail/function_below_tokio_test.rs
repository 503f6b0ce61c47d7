use lock_core::distributed_lock;

#[tokio::test]
#[distributed_lock("job:test")]
async fn works() {}

fn main() {}
