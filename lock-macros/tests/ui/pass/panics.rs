#![deny(warnings)]
//! A panic of the body is resumed, after the lock was released.

#[path = "../support/mod.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};

use lock_core::{LockError, distributed_lock};
use support::{install, is_held};

#[distributed_lock("order:panic:<id>")]
async fn at_once(id: u64) -> Result<(), LockError> {
    panic!("order {id}");
}

#[distributed_lock("order:panic:<id>", "order:panic:other")]
async fn later(id: u64) -> Result<(), LockError> {
    tokio::task::yield_now().await;
    std::panic::panic_any(id);
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() {
    set_hook(Box::new(|_| {}));
    let locks = install();

    let panic = tokio::spawn(at_once(1))
        .await
        .expect_err("a panic")
        .into_panic();
    assert_eq!(panic.downcast_ref::<String>().expect("its text"), "order 1");
    assert!(!is_held(&locks, "order:panic:1").await);

    let panic = tokio::spawn(later(2))
        .await
        .expect_err("a panic")
        .into_panic();
    assert_eq!(panic.downcast_ref::<u64>(), Some(&2));
    assert!(!is_held(&locks, "order:panic:2").await);
    assert!(!is_held(&locks, "order:panic:other").await);

    // Released before it goes on: the code that catches it can take the lock immediately.
    let caught = {
        let mut work = Box::pin(at_once(3));
        std::future::poll_fn(move |cx| {
            let poll = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
            poll.map_or(std::task::Poll::Ready(true), |poll| poll.map(|_| false))
        })
        .await
    };
    assert!(caught);
    assert!(!is_held(&locks, "order:panic:3").await);
}
