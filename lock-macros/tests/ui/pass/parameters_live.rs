#![deny(warnings)]
//! Parameters that the body does not mention live as long as those that it does, and all are dropped
//! in the order of a plain function, while the lock is held.

#[path = "../support/mod.rs"]
mod support;

use std::cell::RefCell;

use lock_core::{LockError, LockProvider, distributed_lock};

thread_local! {
    static EVENTS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

fn note(event: &'static str) {
    EVENTS.with_borrow_mut(|events| events.push(event));
}

fn events() -> Vec<&'static str> {
    EVENTS.with_borrow_mut(std::mem::take)
}

struct Noisy(&'static str);

impl Drop for Noisy {
    fn drop(&mut self) {
        let locks = LockProvider::installed().expect("installed by `main`");
        if !support::is_held_now(locks, "order:live:1") {
            note("free");
        }
        note(self.0);
    }
}

async fn plain(_a: Noisy, b: Noisy, _c: Noisy, (d, _e): (Noisy, Noisy)) -> Result<(), LockError> {
    let _local = Noisy("local");
    tokio::task::yield_now().await;
    note("body");
    drop(b);
    let _ = &d;
    Ok(())
}

#[distributed_lock("order:live:1")]
async fn locked(_a: Noisy, b: Noisy, _c: Noisy, (d, _e): (Noisy, Noisy)) -> Result<(), LockError> {
    let _local = Noisy("local");
    tokio::task::yield_now().await;
    note("body");
    drop(b);
    let _ = &d;
    Ok(())
}

#[distributed_lock("order:live:1", refused = |error| drop((error, &kept)))]
async fn elsewhere(kept: Noisy, _other: Noisy) {
    note("body");
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), LockError> {
    support::install();
    let noisy = || (Noisy("a"), Noisy("b"), Noisy("c"), (Noisy("d"), Noisy("e")));

    let (a, b, c, d) = noisy();
    plain(a, b, c, d).await?;
    let expected: Vec<_> = events()
        .into_iter()
        .filter(|event| *event != "free")
        .collect();
    let (a, b, c, d) = noisy();
    locked(a, b, c, d).await?;
    assert_eq!(events(), expected);

    // The closure needs it for as long as the function can be refused.
    elsewhere(Noisy("kept"), Noisy("other")).await;
    assert_eq!(events(), ["body", "other", "free", "kept"]);
    Ok(())
}
