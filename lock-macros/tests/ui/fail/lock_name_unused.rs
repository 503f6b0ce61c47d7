use lock_core::lock_name;

fn main() {
    let id = 42;
    let _ = lock_name!("order:process:<id>", order = 7);
    let _ = id;
}
