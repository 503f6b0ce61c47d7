#![deny(warnings)]
//! `?`, `return`, loops, labels and inference mean what they meant, and release the lock.

#[path = "../support/mod.rs"]
mod support;

use std::num::ParseIntError;

use lock_core::{LockError, distributed_lock};
use support::{assert_send, install, is_held};

#[derive(Debug)]
pub enum Error {
    Lock(#[allow(dead_code)] LockError),
    Number(#[allow(dead_code)] ParseIntError),
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

impl From<ParseIntError> for Error {
    fn from(error: ParseIntError) -> Self {
        Self::Number(error)
    }
}

#[distributed_lock("number:sum:<key>")]
async fn sum(key: &str, numbers: &[&str]) -> Result<i64, Error> {
    let mut sum = 0;
    'all: for number in numbers {
        for c in number.chars() {
            match c {
                '#' => continue 'all,
                '!' => break 'all,
                '=' => return Ok(sum),
                _ => {}
            }
        }
        sum += number.parse::<i64>()?;
    }
    Ok(sum)
}

#[distributed_lock("number:infer:<id>")]
async fn infer(id: u8) -> Result<Vec<u8>, Error> {
    let many = |up_to| (0..up_to).collect();
    if id > 100 {
        return Err("x".parse::<u8>().unwrap_err().into());
    }
    Ok(many(id))
}

#[distributed_lock("number:never:<id>")]
async fn ends_in_return(id: u8) -> Result<u8, Error> {
    return Ok(id);
}

#[distributed_lock("number:loop:<id>")]
async fn ends_in_loop(mut id: u8) -> Result<u8, Error> {
    loop {
        id += 1;
        if id.is_multiple_of(10) {
            break Ok(id);
        }
    }
}

#[distributed_lock("number:items:<id>")]
async fn with_items(id: u8) -> Result<u8, Error> {
    #![allow(clippy::items_after_statements)]
    use std::convert::identity as same;
    const STEP: u8 = 2;
    fn step(by: u8) -> u8 {
        same(by) + STEP
    }
    Ok(step(id))
}

#[distributed_lock("number:slice:<id>")]
async fn coerced(id: u8) -> Result<&'static [u8], Error> {
    Ok(match id {
        0 => &[],
        _ => &[1, 2],
    })
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), Error> {
    let locks = install();
    assert_eq!(assert_send(sum("a", &["1", "#", "2"])).await?, 3);
    assert_eq!(sum("a", &["1", "!", "x"]).await?, 1);
    assert_eq!(sum("a", &["1", "=", "x"]).await?, 1);
    assert!(matches!(sum("a", &["1", "x"]).await, Err(Error::Number(_))));
    assert!(!is_held(&locks, "number:sum:a").await);
    assert_eq!(infer(2).await?, [0, 1]);
    assert!(infer(101).await.is_err());
    assert_eq!(ends_in_return(3).await?, 3);
    assert_eq!(ends_in_loop(3).await?, 10);
    assert_eq!(with_items(3).await?, 5);
    assert_eq!(coerced(1).await?, [1, 2]);
    Ok(())
}
