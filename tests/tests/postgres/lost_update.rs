//! The update that a lock alone does not save: its holder stands still between its last look at the
//! lock and its write.

use lock_tests::child::Child;
use lock_tests::{PostgresStore, Store, row};

const LOCK: &str = "account:withdraw:1";

/// A reads, and stands still past its lease; B takes the lock, and writes; A goes on, and writes what
/// it had worked out. Tells whether A was let, and what is in the row then.
async fn overtaken(guarded: &str) -> (bool, i64) {
    let store = PostgresStore::open().await;
    let url = store.server.url();
    row::create(&url).await.unwrap();
    let start =
        || async { Child::start(env!("CARGO_BIN_EXE_locker"), &store.address().unwrap()).await };
    let (mut a, mut b) = (start().await, start().await);
    a.hold(&LOCK).await;
    assert!(a.ask("token").await.starts_with("token "));
    let seen = row::balance(&url).await.unwrap();
    a.freeze().await;

    assert_eq!(b.ask(&format!("acquire {LOCK} 30000")).await, "granted");
    assert!(b.ask("token").await.starts_with("token "));
    let withdrawn = row::balance(&url).await.unwrap() - 30;
    let written = b.ask(&format!("write {url} {guarded} {withdrawn}")).await;
    assert_eq!(written, "written");
    b.release().await;

    a.thaw().await;
    let written = a.ask(&format!("write {url} {guarded} {}", seen - 50)).await;
    assert_eq!(a.ask("valid").await, "valid false");
    (written == "written", row::balance(&url).await.unwrap())
}

#[tokio::test]
async fn without_a_check_the_update_of_another_is_lost() {
    assert_eq!(overtaken("not").await, (true, 50));
}

#[tokio::test]
async fn a_column_refuses_the_write_that_comes_too_late() {
    assert_eq!(overtaken("by-column").await, (false, 70));
}

#[tokio::test]
async fn a_fence_refuses_the_write_that_comes_too_late() {
    assert_eq!(overtaken("by-fence").await, (false, 70));
}
