use lock_core::lock_name;

fn main() {
    let id = 42;
    let _ = lock_name!("order:process:<x>", x = 7, x = 8);
    let _ = id;
}
