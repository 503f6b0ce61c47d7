//! A holder that is overtaken: see [`lock_tests::lost_update`].

use lock_tests::{PostgresStore, Store, lost_update};

async fn overtaken(guarded: &str) -> (bool, i64) {
    let store = PostgresStore::open().await;
    let (locker, rows) = (env!("CARGO_BIN_EXE_locker"), store.server.url());
    lost_update::overtaken(locker, &store, &rows, guarded).await
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
