//! Starts servers for a test and ends them with it: see `lock_tests::servers::guard`.

fn main() -> std::io::Result<()> {
    lock_tests::servers::guard()
}
