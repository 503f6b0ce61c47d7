#![deny(warnings)]
//! `refused =` makes the return value of every refusal; it is evaluated once, before the acquire.

#[path = "../support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicU32, Ordering};

use lock_core::memory::MemoryBackend;
use lock_core::{LockError, LockProvider, distributed_lock};
use support::{assert_send, hold, is_held, locks};

#[derive(Debug, PartialEq)]
struct Page {
    status: u16,
    id: u64,
}

static EVALUATED: AtomicU32 = AtomicU32::new(0);

fn counted<F>(refused: F) -> F {
    EVALUATED.fetch_add(1, Ordering::Relaxed);
    refused
}

#[distributed_lock(
    "page:show:<id>",
    wait = "0s",
    max_hold = "20ms",
    refused = counted(|error: LockError| Page { status: status(&error), id })
)]
async fn show(locks: &LockProvider, id: u64, slow: bool) -> Page {
    assert!(is_held(locks, "page:show:7").await);
    if slow {
        std::future::pending::<()>().await;
    }
    Page { status: 200, id }
}

fn status(error: &LockError) -> u16 {
    match () {
        () if error.is_contended() => 409,
        () if error.is_lost() => 500,
        () => 400,
    }
}

/// The closure borrows what the body does not take.
#[distributed_lock("page:list:<key>", refused = |error| format!("{key}: {error}"))]
async fn list(locks: &LockProvider, key: String) -> String {
    let _ = locks;
    String::from("listed")
}

/// A format string has the name without its mark.
#[distributed_lock("page:kind:<r#type>", refused = |_| format!("no {type}"))]
async fn kind(locks: &LockProvider, r#type: String) -> String {
    let _ = locks;
    String::from("kind")
}

/// What the closure borrows the body can read, and the rest it owns.
#[distributed_lock("page:search:<key>", wait = "0s", refused = |error| format!("{key}: {error}"))]
async fn search(locks: &LockProvider, key: String, mut words: Vec<String>, id: u64) -> String {
    assert!(is_held(locks, &format!("page:search:{key}")).await);
    words.push(key.clone());
    let all: Vec<String> = words;
    format!("{key} {id} {}", all.join(","))
}

/// Parameters that the body does not mention are dropped before the release all the same.
#[distributed_lock("page:drop:<key>", refused = |_| key.len())]
async fn dropped(locks: &LockProvider, key: &str, _kept: Kept<'_>) -> usize {
    let _ = locks;
    key.len()
}

/// Looks at the lock when it is dropped.
struct Kept<'a>(&'a MemoryBackend);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        assert_eq!(self.0.held(), 1, "dropped after the release");
    }
}

struct Pages(LockProvider);

impl Pages {
    fn refuse(&self, error: &LockError) -> String {
        format!("{}: {error}", self.0.backend())
    }

    #[distributed_lock("page:own:<key>", provider = self.0, refused = |error| self.refuse(&error))]
    async fn by_reference(&self, key: String) -> String {
        key + self.0.backend()
    }

    #[distributed_lock("page:own:<key>", provider = self.0, refused = |_| key.clone())]
    async fn by_value(self, key: String) -> String {
        let Self(locks) = self;
        key.clone() + locks.backend()
    }
}

/// A function is as good as a closure.
#[distributed_lock("page:count:<key>", refused = failed)]
async fn count(locks: &LockProvider, key: &str) -> usize {
    let _ = locks;
    key.len()
}

fn failed(_: LockError) -> usize {
    usize::MAX
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
pub async fn main() {
    let locks = locks();
    assert_eq!(
        assert_send(show(&locks, 7, false)).await,
        Page { status: 200, id: 7 }
    );
    assert_eq!(EVALUATED.load(Ordering::Relaxed), 1);
    assert_eq!(show(&locks, 7, true).await, Page { status: 500, id: 7 });
    let _guard = hold(&locks, "page:show:7").await;
    assert_eq!(show(&locks, 7, false).await, Page { status: 409, id: 7 });
    assert_eq!(EVALUATED.load(Ordering::Relaxed), 3);

    assert_eq!(assert_send(list(&locks, "k".into())).await, "listed");
    assert!(list(&locks, String::new()).await.starts_with(": "));
    assert_eq!(assert_send(kind(&locks, "k".into())).await, "kind");
    assert_eq!(kind(&locks, String::new()).await, "no ");
    let words = || vec!["a".to_owned()];
    let found = assert_send(search(&locks, "k".into(), words(), 1)).await;
    assert_eq!(found, "k 1 a,k");
    let other = hold(&locks, "page:search:k").await;
    let found = search(&locks, "k".into(), words(), 1).await;
    assert!(found.starts_with("k: "), "{found}");
    drop(other);

    let store = MemoryBackend::new();
    let alone = LockProvider::new(store.clone());
    assert_eq!(assert_send(dropped(&alone, "abc", Kept(&store))).await, 3);

    let pages = Pages(locks.clone());
    assert_eq!(assert_send(pages.by_reference("k".into())).await, "kmemory");
    assert!(
        pages
            .by_reference(String::new())
            .await
            .starts_with("memory: ")
    );
    assert_eq!(assert_send(pages.by_value("k".into())).await, "kmemory");

    assert_eq!(assert_send(count(&locks, "abc")).await, 3);
    assert_eq!(count(&locks, "").await, usize::MAX);
}
