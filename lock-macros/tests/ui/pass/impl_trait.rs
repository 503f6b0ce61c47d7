#![deny(warnings)]
//! `impl Trait` in either position.

#[path = "../support/mod.rs"]
mod support;

use std::fmt::Display;

use lock_core::{LockError, distributed_lock};
use support::{assert_send, hold, install};

#[distributed_lock("page:show:<id>", wait = "0s", refused = |error| error.to_string())]
async fn opaque(id: impl Display + Send) -> impl Display {
    format!("page {id}")
}

#[distributed_lock("page:list:<id>")]
async fn inside(id: u64) -> Result<impl Iterator<Item = u64> + Send, LockError> {
    if id == 0 {
        return Err(LockError::unavailable("none"));
    }
    Ok((0..id).map(|x| x * 2))
}

/// All of the return type is opaque, and a `Result` all the same.
#[distributed_lock("page:try:<id>", wait = "0s")]
async fn converted(id: u64) -> impl Answer {
    Ok::<_, LockError>(id)
}

trait Answer: Send {
    fn is_ok(&self) -> bool;
}

impl<T: Send> Answer for Result<T, LockError> {
    fn is_ok(&self) -> bool {
        Result::is_ok(self)
    }
}

#[distributed_lock("page:dyn:<id>")]
async fn boxed(id: u64) -> Result<Box<dyn Display + Send>, LockError> {
    if id == 0 {
        return Ok(Box::new("zero"));
    }
    Ok(Box::new(id))
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), LockError> {
    let locks = install();
    assert_eq!(assert_send(opaque(3)).await.to_string(), "page 3");
    assert_eq!(assert_send(inside(3)).await?.collect::<Vec<_>>(), [0, 2, 4]);
    assert!(inside(0).await.is_err());
    assert_eq!(assert_send(boxed(0)).await?.to_string(), "zero");
    assert!(assert_send(converted(1)).await.is_ok());

    let _a = hold(&locks, "page:show:3").await;
    assert!(opaque(3).await.to_string().contains("contended"));
    let _b = hold(&locks, "page:try:1").await;
    assert!(!converted(1).await.is_ok());
    Ok(())
}
