use lock_core::distributed_lock;

#[distributed_lock("job:serve")]
async fn serve() -> ! {
    loop {
        std::future::pending::<()>().await;
    }
}

fn main() {}
