use lock_core::distributed_lock;

#[distributed_lock("order:process:1")]
struct Order;

fn main() {
    let _ = Order;
}
