#![deny(warnings)]
//! `lock_name!` captures as `format!` does.

#[path = "../support/mod.rs"]
mod support;

use std::cell::Cell;
use std::time::Duration;

use lock_core::{LockError, LockName, lock_name};
use support::locks;

struct Order {
    id: u64,
    lines: (String, u8),
}

impl Order {
    fn name(&self) -> Result<LockName, LockError> {
        lock_name!("order:process:<self.id>")
    }
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), LockError> {
    let id = 42;
    let order = Order {
        id: 7,
        lines: ("a:b".into(), 3),
    };
    assert_eq!(
        lock_name!("order:process:<id>")?.as_str(),
        "order:process:42"
    );
    assert_eq!(
        lock_name!("order:process:<id>")?.label(),
        "order:process:<id>"
    );
    assert_eq!(order.name()?.as_str(), "order:process:7");
    assert_eq!(lock_name!("job:nightly")?.as_str(), "job:nightly");
    assert_eq!(
        lock_name!("order:line:<order.lines.0>:<order.lines.1>")?.as_str(),
        "order:line:a%3Ab:3"
    );

    let calls = Cell::new(0);
    let next = || {
        calls.set(calls.get() + 1);
        calls.get()
    };
    let name = lock_name!("order:pair:<n>:<n>:<o.id>", n = next(), o = order)?;
    assert_eq!(name.as_str(), "order:pair:1:1:7");
    assert_eq!(
        (calls.get(), order.id),
        (1, 7),
        "evaluated once, and only borrowed"
    );
    let name = lock_name!("order:temp:<text.trim()>", text = format!(" {id} "),)?;
    assert_eq!(name.as_str(), "order:temp:42");
    let name = lock_name!("user:login:<email:hashed>", email = "ann@example.org")?;
    assert!(!name.as_str().contains("ann"));

    assert!(
        lock_name!("order:process:<id>", id = "")
            .expect_err("empty")
            .is_invalid_name()
    );
    let guard = locks()
        .lock(lock_name!("order:process:<id>"))?
        .acquire(Duration::ZERO)
        .await?;
    assert_eq!(guard.name().as_str(), "order:process:42");
    Ok(())
}
