//! The update that a lock alone does not save: its holder stands still between its last look at the
//! lock and its write.

use crate::child::Child;
use crate::{Store, row};

const LOCK: &str = "account:withdraw:1";

/// A reads a [row], and stands still past its lease; B takes the lock, and writes; A goes on, and
/// writes what it had worked out. Tells whether A was let, and what is in the row then: 100 were
/// there, A takes 50, and B 30.
///
/// `locker` is that program; `rows` is a PostgreSQL server for the row; writes are `guarded` as
/// [`row::Guarded`] has it.
///
/// # Panics
///
/// When B is not granted the lock, or A not told of its loss.
pub async fn overtaken<S: Store>(
    locker: &str,
    store: &S,
    rows: &str,
    guarded: &str,
) -> (bool, i64) {
    row::create(rows).await.unwrap();
    let address = store.address().expect("processes can share the store");
    let start = || Child::start(locker, &address);
    let (mut a, mut b) = (start().await, start().await);
    a.hold(&LOCK).await;
    assert!(a.ask("token").await.starts_with("token "));
    let seen = row::balance(rows).await.unwrap();
    a.freeze().await;

    assert_eq!(b.ask(&format!("acquire {LOCK} 30000")).await, "granted");
    assert!(b.ask("token").await.starts_with("token "));
    let withdrawn = row::balance(rows).await.unwrap() - 30;
    let written = b.ask(&format!("write {rows} {guarded} {withdrawn}")).await;
    assert_eq!(written, "written");
    b.release().await;

    a.thaw().await;
    let written = a
        .ask(&format!("write {rows} {guarded} {}", seen - 50))
        .await;
    assert_eq!(a.ask("valid").await, "valid false");
    (written == "written", row::balance(rows).await.unwrap())
}
