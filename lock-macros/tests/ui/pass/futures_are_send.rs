#![deny(warnings)]
//! What could be spawned can still be spawned; what could not, still runs.

#[path = "../support/mod.rs"]
mod support;

use std::cell::{Cell, RefCell};
use std::fmt::{self, Display};
use std::rc::Rc;

use lock_core::{LockError, distributed_lock};
use support::{assert_send, install};

/// Can go to another thread, but not be looked at from two.
struct NotSync(Cell<u8>);

impl Display for NotSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.get().fmt(f)
    }
}

#[distributed_lock("order:cell:<value>")]
async fn cell(value: NotSync, unused: NotSync) -> Result<u8, LockError> {
    value.0.set(value.0.get() + 1);
    Ok(value.0.get())
}

#[distributed_lock("order:cell:<value>", refused = move |_| value_of(None))]
async fn answered(value: NotSync) -> Result<NotSync, String> {
    tokio::task::yield_now().await;
    Ok(value)
}

fn value_of(found: Option<NotSync>) -> Result<NotSync, String> {
    found.ok_or_else(String::new)
}

#[distributed_lock("order:generic:<value>")]
async fn generic<T: Display + Send>(value: T) -> Result<T, LockError> {
    Ok(value)
}

#[distributed_lock("order:local:<key>")]
async fn local(value: Rc<RefCell<u8>>, key: Rc<str>) -> Result<Rc<str>, LockError> {
    *value.borrow_mut() += 1;
    Ok(key)
}

#[tokio::main]
pub async fn main() -> Result<(), LockError> {
    install();
    let two = || NotSync(Cell::new(2));
    assert_eq!(
        tokio::spawn(cell(two(), two())).await.expect("no panic")?,
        3
    );
    assert!(
        tokio::spawn(answered(two()))
            .await
            .expect("no panic")
            .is_ok()
    );
    assert_eq!(tokio::spawn(generic("x")).await.expect("no panic")?, "x");
    assert_eq!(assert_send(generic(two())).await?.0.get(), 2);
    let value = Rc::default();
    assert_eq!(&*local(Rc::clone(&value), "k".into()).await?, "k");
    assert_eq!(*value.borrow(), 1);
    Ok(())
}
