use lock_core::distributed_lock;

struct Shop;

#[distributed_lock("order:process:1")]
impl Shop {
    async fn process(&self) {}
}

fn main() {
    let _ = Shop.process();
}
