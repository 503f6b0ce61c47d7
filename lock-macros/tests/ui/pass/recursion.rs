#![deny(warnings)]
//! A function that calls itself, each time under another lock.

#[path = "../support/mod.rs"]
mod support;

use lock_core::{LockError, distributed_lock};
use support::{assert_send, install, installed, is_held};

#[distributed_lock("node:visit:<depth>", wait = "0s")]
async fn visit(depth: u32) -> Result<u32, LockError> {
    if depth == 0 {
        assert!(is_held(&installed(), "node:visit:5").await);
        return Ok(0);
    }
    Ok(1 + Box::pin(visit(depth - 1)).await?)
}

struct Tree(Vec<Tree>);

impl Tree {
    #[distributed_lock("tree:count:<path>")]
    async fn count(&self, path: String) -> Result<usize, LockError> {
        let mut sum = 1;
        for (at, child) in self.0.iter().enumerate() {
            sum += Box::pin(child.count(format!("{path}.{at}"))).await?;
        }
        Ok(sum)
    }
}

/// The same lock again is contention, not a deadlock.
#[distributed_lock("node:again:x", wait = "0s")]
async fn again(first: bool) -> Result<(), LockError> {
    if first {
        Box::pin(again(false)).await
    } else {
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), LockError> {
    install();
    assert_eq!(assert_send(visit(5)).await?, 5);
    let tree = Tree(vec![Tree(vec![]), Tree(vec![Tree(vec![])])]);
    assert_eq!(assert_send(tree.count("root".into())).await?, 4);
    assert!(again(true).await.expect_err("its own").is_contended());
    Ok(())
}
