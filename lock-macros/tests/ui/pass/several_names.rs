#![deny(warnings)]
//! Several locks: all of them, in one order, or none.

#[path = "../support/mod.rs"]
mod support;

use lock_core::{LockError, LockProvider, distributed_lock};
use support::{assert_send, hold, is_held, locks};

struct Bank {
    locks: LockProvider,
}

impl Bank {
    #[distributed_lock(
        "account:transfer:<from>",
        "account:transfer:<to>",
        provider = self.locks,
        guard = held,
        wait = "5s"
    )]
    async fn transfer(&mut self, from: u64, to: u64) -> Result<usize, LockError> {
        assert!(is_held(&self.locks, &format!("account:transfer:{from}")).await);
        assert!(is_held(&self.locks, &format!("account:transfer:{to}")).await);
        tokio::task::yield_now().await;
        Ok(held.len())
    }

    #[distributed_lock(
        "account:try:<from>",
        "account:try:<to>",
        "account:try:all",
        provider = self.locks,
        policy = background_job,
        busy = Ok(false)
    )]
    async fn attempt(&self, from: &str, to: &str) -> Result<bool, LockError> {
        let _ = (from, to);
        Ok(true)
    }
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), LockError> {
    let locks = locks();
    let bank = || Bank {
        locks: locks.clone(),
    };
    assert_eq!(assert_send(bank().transfer(1, 2)).await?, 2);
    assert_eq!(bank().transfer(1, 1).await?, 1, "one lock, not a deadlock");

    let mut tasks = Vec::new();
    for at in 0..50 {
        let mut bank = bank();
        let (from, to) = if at % 2 == 0 { (1, 2) } else { (2, 1) };
        tasks.push(tokio::spawn(async move { bank.transfer(from, to).await }));
    }
    for task in tasks {
        assert_eq!(task.await.expect("no panic")?, 2, "opposite orders end too");
    }

    assert!(assert_send(bank().attempt("a", "b")).await?);
    let _guard = hold(&locks, "account:try:b").await;
    assert!(!bank().attempt("a", "b").await?);
    assert!(!is_held(&locks, "account:try:a").await, "nothing is kept");
    assert!(
        bank()
            .attempt("a", "")
            .await
            .expect_err("no name")
            .is_invalid_name()
    );
    Ok(())
}
