use lock_core::distributed_lock;

#[distributed_lock("job:sweep")]
async fn sweep() {}

fn main() {}
